"""`python -m avar_rl.verl_plugin.sft`."""

import sys

from avar_rl.verl_plugin.sft.run import main

sys.exit(main())
