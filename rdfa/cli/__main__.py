"""`python -m rdfa.cli`: the command without an installed entry point."""

import sys

from rdfa.cli import main

sys.exit(main())
