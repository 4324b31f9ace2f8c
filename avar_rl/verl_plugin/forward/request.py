"""What the trainer asks of a forward pass of the actor beside log-probabilities. Travels in a batch's extra_info."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from avar_rl.blind import BlindSettings
from avar_rl.verl_plugin.config.settings import AttentionSettings

REQUEST = "avar_request"  # key of the request in a batch's extra_info
MASS_COLUMNS = ("image_mass", "system_mass")  # what comes back, flat: see `outputs.mass_outputs`


@dataclass(frozen=True)
class ForwardRequest:
    """What one pass is to do.

    attention: record the masses of the response tokens, as these settings say; None: record nothing.
    blind: mask the images as these settings say, and call the log-probabilities `blind_log_probs`; None: a plain pass.
    """

    attention: AttentionSettings | None = None
    blind: BlindSettings | None = None


NOTHING = ForwardRequest()


def requested(micro_batch: TensorDict) -> ForwardRequest:
    """What the trainer wants of this batch; `NOTHING` where it said nothing."""
    found: Any = tu.get_non_tensor_data(micro_batch, REQUEST, default=None)
    return NOTHING if found is None else found
