"""The filter in HDF5's pipeline: its numbers, its call, the plugin for what is not Python."""
