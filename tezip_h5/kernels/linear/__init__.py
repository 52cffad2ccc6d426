"""Kernels of the linear coder for the CPU."""
