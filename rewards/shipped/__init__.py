"""The rewards that come with avar_rl, one file each. A reward of your own goes beside this folder, into `rewards/`."""
