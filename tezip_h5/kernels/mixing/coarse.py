"""The kernel of the context-mixing coder with the fast sizes."""

from tezip_h5.kernels.mixing.planes import compiled
from tezip_h5.kernels.sizes import COARSE

code_plane = compiled(COARSE)
