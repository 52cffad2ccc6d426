#!/bin/sh
# Read a stack with HDF5's own tools. This needs h5dump, h5ls, h5repack and h5diff (Debian package
# hdf5-tools), and the C plugin, which pip builds if there is a C compiler.
set -eu

python3 - <<'PYTHON'
import tezip_h5
from tezip_h5.simulate import detector_sequence

tezip_h5.write(detector_sequence(20, 64, 64), "run.h5", absolute=2, level="fast", overwrite=True)
PYTHON

# The plugin is not needed for structure, attributes and the 8-bit previews.
h5dump -pH -d scan/data run.h5
h5ls -r run.h5

# The plugin is needed for samples.
HDF5_PLUGIN_PATH="${HDF5_PLUGIN_PATH:-$(tezip-h5 plugin path)}"
export HDF5_PLUGIN_PATH
echo "the first samples of frame 7:"
h5dump -d scan/data -s 7,0,0 -c 1,2,8 run.h5

# Write the whole stack as raw binary data, and to a file without filters.
h5dump -d scan/data -b LE -o run.raw run.h5 >/dev/null
h5repack -f scan/data:NONE run.h5 plain.h5
h5diff -q run.h5 plain.h5 /scan/data /scan/data && echo "plain.h5 holds the same samples"
