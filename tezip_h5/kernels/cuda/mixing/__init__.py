"""Kernels of the mixing coder for CUDA, and the memory of its streams on the device."""
