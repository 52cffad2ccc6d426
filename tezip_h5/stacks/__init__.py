"""Where stacks come from: files of images and arrays, datasets by name, blocks of dask arrays."""
