"""The terms of the actor's loss that come with avar_rl, one file each."""
