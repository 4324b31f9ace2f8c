"""The token weights that come with avar_rl, one file each."""
