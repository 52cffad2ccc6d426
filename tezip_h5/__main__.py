"""``python -m tezip_h5`` is the command ``tezip-h5``."""

import sys

from tezip_h5.cli import main

sys.exit(main())
