"""`python -m exgra_adapter`, as torchrun starts it: the same as `exgra-med`."""

import sys

from exgra_adapter.cli import main

if __name__ == "__main__":
    sys.exit(main())
