"""`python -m tfopt` is the `tfopt` command."""

import sys

from tfopt.cli import main

sys.exit(main())
