"""Kernels of the linear coder for CUDA, and the memory of its chunks on the device."""
