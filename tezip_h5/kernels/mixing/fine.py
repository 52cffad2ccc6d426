"""The kernel of the context-mixing coder at its thorough sizes."""

from tezip_h5.kernels.mixing.planes import compiled
from tezip_h5.kernels.sizes import FINE

code_plane = compiled(FINE)
