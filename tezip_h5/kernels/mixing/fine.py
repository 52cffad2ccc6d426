"""The kernel of the context-mixing coder with the thorough sizes."""

from tezip_h5.kernels.mixing.planes import compiled
from tezip_h5.kernels.sizes import FINE

code_plane = compiled(FINE)
