"""``python -m gateways``: the command line."""

import sys

from gateways.cli import main

if __name__ == "__main__":
    sys.exit(main())
