"""zarr: codecs for its versions 2 and 3, and references to the chunks of HDF5 files."""
