"""HDF5: the filter for readers, the container, writing and reading."""
