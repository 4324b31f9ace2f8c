"""`python -m avar_rl COMMAND …` is `avar COMMAND …`."""

import sys

from avar_rl.cli import main

sys.exit(main())
