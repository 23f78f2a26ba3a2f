"""`python -m graphmatch` is the command `graphmatch`."""

import sys

from graphmatch.cli import main

if __name__ == "__main__":
    sys.exit(main())
