"""`python -m rdfa`: the command line, for `torchrun -m rdfa`."""

import sys

from rdfa.cli import main

if __name__ == "__main__":
    sys.exit(main())
