"""`python -m gateway`: the same command as `dialback`."""

import sys

from gateway.cli import main

sys.exit(main())
