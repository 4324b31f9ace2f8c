"""Run by test_checkpoint_safety.py: the SFT command, with a disk that is full at one file of one checkpoint.

usage: sft_with_faults.py FILE_PART ARGUMENT…   (FILE_PART "" for no fault)
"""

import errno
import os
import sys

from avar_rl.verl_plugin.config import environment
from avar_rl.verl_plugin.sft import run as sft

environment.prepare("cpu")

import torch  # noqa: E402

stock = torch.save
full_at = sys.argv[1]


def save(obj, path, *args, **kwargs):
    """The first bytes still find room, as on a disk that fills up."""
    if full_at and full_at in str(path):
        with open(path, "wb") as file:
            file.write(b"cut off")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    stock(obj, path, *args, **kwargs)


torch.save = save
sys.exit(sft.main(sys.argv[2:]))
