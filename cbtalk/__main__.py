"""`python -m cbtalk` is the command `cbtalk`."""

import sys

from cbtalk.cli import main

sys.exit(main())
