"""``python -m tezip_h5.cli``."""

import sys

from tezip_h5.cli import main

sys.exit(main())
