"""What the trainer asks of a forward pass of the actor beside log-probabilities. Travels in a batch's extra_info."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from avar_rl.blind import BlindSettings
from avar_rl.verl_plugin.config.settings import AttentionSettings, GRPOSettings
from rewards.finding import need_masses
from rewards.losses import LossTerm

REQUEST = "avar_request"  # key of the request in a batch's extra_info
MASS_COLUMNS = ("image_mass", "system_mass", "region_mass")  # what comes back, flat: see `outputs.mass_outputs`


@dataclass(frozen=True)
class LossRequest:
    """What is added to the policy loss of an update.

    terms: as the recipe names them; the worker finds their functions.
    blind: how the images are masked in a second pass, with gradients, over each micro-batch; None: no term needs one.
    """

    terms: tuple[LossTerm, ...]
    blind: BlindSettings | None = None


@dataclass(frozen=True)
class ForwardRequest:
    """What one pass is to do.

    attention: record the masses of the response tokens, as these settings say; None: record nothing.
    region: record the mass on the evidence boxes of the rows (column `evidence`), too.
    blind: mask the images as these settings say, and call the log-probabilities `blind_log_probs`; None: a plain pass.
    losses: of an update: terms beside the policy loss; None: verl's loss alone.
    """

    attention: AttentionSettings | None = None
    region: bool = False
    blind: BlindSettings | None = None
    losses: LossRequest | None = None

    @property
    def mass_columns(self) -> tuple[str, ...]:
        """Names of the masses that come back."""
        if self.attention is None:
            return ()
        return MASS_COLUMNS if self.region else MASS_COLUMNS[:2]


NOTHING = ForwardRequest()


def recording(settings: GRPOSettings, needs: frozenset[str]) -> ForwardRequest:
    """The request for the masses that are among `needs`."""
    return ForwardRequest(settings.attention if need_masses(needs) else None, region="region" in needs)


def update_request(settings: GRPOSettings) -> ForwardRequest:
    """What the actor's updates are to do; `NOTHING` where no loss term has a weight."""
    losses = settings.loss_set()
    if not losses.names:
        return NOTHING
    needs = losses.needs
    wanted = LossRequest(settings.losses, settings.blind if "blind" in needs else None)
    return replace(recording(settings, needs), losses=wanted)


def requested(micro_batch: TensorDict) -> ForwardRequest:
    """What the trainer wants of this batch; `NOTHING` where it said nothing."""
    found: Any = tu.get_non_tensor_data(micro_batch, REQUEST, default=None)
    return NOTHING if found is None else found
