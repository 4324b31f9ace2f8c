"""`python -m avar_rl.verl_plugin.grpo`."""

import sys

from avar_rl.verl_plugin.grpo.run import main

sys.exit(main())
