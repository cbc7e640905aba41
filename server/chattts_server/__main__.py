"""`python -m chattts_server`."""

import sys

from chattts_server.cli import main

if __name__ == "__main__":
    sys.exit(main())
