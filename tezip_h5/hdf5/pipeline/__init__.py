"""The filter in HDF5's pipeline: its options, its callback, and the plugin for other programs."""
