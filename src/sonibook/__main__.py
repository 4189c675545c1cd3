"""``python -m sonibook`` is the command ``sonibook``."""

import sys

from sonibook.cli import main

if __name__ == "__main__":
    sys.exit(main())
