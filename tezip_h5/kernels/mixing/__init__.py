"""Kernels of the mixing coder for the CPU. The kernels for CUDA reuse most of the functions."""
