"""The kernel of the context-mixing coder at its fast sizes."""

from tezip_h5.kernels.blending import build
from tezip_h5.kernels.sizes import COARSE

code_plane = build(COARSE)
