"""What stages need of cards, host and disk, against what there is; too little is refused, with the knobs that help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from avar_rl import estimate
from avar_rl.estimate import GB, NEAR, ModelSizes, Part, RolloutEngine, Training
from avar_rl.verl_plugin.recipe_check.machine import Machine, used_disk
from avar_rl.verl_plugin.recipe_check.numbers import StageNumbers

_RANK = 64  # of the LoRA that is proposed


@dataclass(frozen=True)
class Need:
    """One comparison: the parts of what is needed, and what there is.

    what: such as "stage sft, host memory". have: bytes; None where that is not known. help: what to do then.
    limit: bytes that must not be passed; `have` where that is None. of_card: it is memory of a card.
    """

    what: str
    parts: tuple[Part, ...]
    have: float | None
    help: str
    limit: float | None = None
    of_card: bool = False

    @property
    def size(self) -> float:
        """What is needed in all, in bytes."""
        return estimate.total(self.parts)

    def refusal(self) -> str | None:
        """A sentence where it cannot fit."""
        limit = self.have if self.limit is None else self.limit
        size = estimate.total([part for part in self.parts if not part.rough])
        if limit is None or size <= limit:
            return None
        return f"{self.what}: about {size / GB:.1f} GB are needed, and there are {limit / GB:.1f}: {self.help}"

    def warning(self) -> str | None:
        """A sentence where it may not fit."""
        if self.have is None or self.size <= NEAR * self.have or self.refusal():
            return None
        return f"{self.what}: about {self.size / GB:.1f} GB are needed, and {self.have / GB:.1f} are free: {self.help}"


def uncompared(need: Need) -> Need:
    """A need of host or disk, without what this machine has; those of cards are compared with the stated card."""
    return need if need.of_card else replace(need, have=None, limit=None)


def card_needs(stage: StageNumbers, machine: Machine) -> list[Need]:
    """The memory of each card, in training and in the rollout. None where the model is not known yet."""
    if stage.model is None:
        return []
    run, card = stage.training, machine.card
    parts = estimate.training_parts(stage.model, run)
    if stage.rollout is not None:
        held = stage.rollout.share * (card or 0) if stage.rollout.stays else estimate.CUDA_PROCESS
        parts.append(
            Part("rollout engine meanwhile", held, "its share of the card" if stage.rollout.stays else "asleep")
        )
    what = f"stage {stage.name}, training, each of {run.gpus} GPUs"
    needs = [Need(what, tuple(parts), card, _training_help(stage, estimate.total(parts), card), of_card=True)]
    if stage.rollout is not None and card is not None:
        needs.append(_rollout_need(stage, stage.model, stage.rollout, card))
    return needs


def _rollout_need(stage: StageNumbers, model: ModelSizes, rollout: RolloutEngine, card: float) -> Need:
    """The engine takes its share of the card, and its KV cache must hold at least one sequence."""
    parts = estimate.rollout_parts(model, rollout, stage.training, card)
    least = estimate.key_value_bytes(model, rollout) * rollout.length
    weights, cache, process = parts[:3]
    what = f"stage {stage.name}, rollout, each of {stage.training.gpus} GPUs"
    if cache.size < least:
        needed = (weights, replace(cache, size=least, basis=f"one sequence of {rollout.length} tokens"), process)
        help_ = "raise ROLLOUT_MEMORY or TENSOR_PARALLEL, or take larger cards"
        return Need(f"{what}, the engine's share", needed, rollout.share * card, help_, of_card=True)
    help_ = (
        "lower ROLLOUT_MEMORY, or keep the actor on the host meanwhile (fsdp_config.param_offload, optimizer_offload)"
    )
    return Need(what, tuple(parts), card, help_, of_card=True)


def _training_help(stage: StageNumbers, needed: float, card: float | None) -> str:
    """The knobs of the GPU recipes that would make it fit, each tried by itself, then two together."""
    run, model = stage.training, stage.model
    assert model is not None
    tried: dict[str, tuple[ModelSizes, Training]] = {}
    fewer = replace(run, tokens=stage.longest)
    lora = replace(model, adapters=model.rank_one * _RANK)
    if run.tokens > stage.longest:
        tried[f"TOKENS_PER_GPU={stage.longest}"] = (model, fewer)
    if not model.adapters:
        tried[f"LORA_RANK={_RANK}"] = (lora, replace(run, dtype=estimate.BF16))
        tried[f"LORA_RANK={_RANK} with TOKENS_PER_GPU={stage.longest}"] = (lora, replace(fewer, dtype=estimate.BF16))
    if not run.host_states:
        tried["OFFLOAD=1 (slower: states stay on the host)"] = (model, replace(run, host_states=True))
        tried[f"OFFLOAD=1 with TOKENS_PER_GPU={stage.longest}"] = (model, replace(fewer, host_states=True))
    before = estimate.total(estimate.training_parts(model, run))
    helps = [
        knob
        for knob, (sizes, training) in tried.items()
        if card is not None
        and needed - before + estimate.total(estimate.training_parts(sizes, training)) <= NEAR * card
    ]
    single = [knob for knob in helps if " with " not in knob]
    more = "more NGPUS, or larger cards"
    return (
        f"set {' or '.join(single or helps[:2])}; or take {more}" if helps else f"take {more}, or shorter MAX_* limits"
    )


def host_needs(stages: Sequence[StageNumbers], machine: Machine) -> list[Need]:
    """The memory of the host, by stage. Refused only where the machine has less in all; what is free now may change."""
    needs = []
    for stage in stages:
        run, rollout = stage.training, stage.rollout
        parts = [estimate.process_part(run.gpus // stage.nodes, rollout)]
        if stage.model is not None:
            parts = estimate.host_parts(stage.model, run, nodes=stage.nodes, rollout=rollout, pixels=stage.pixels)
        help_ = (
            "free some, take a smaller MAX_PIXELS or data.train_batch_size, LORA_RANK, or a machine with more memory"
        )
        needs.append(Need(f"stage {stage.name}, host memory", tuple(parts), machine.available, help_, machine.memory))
    return needs


def disk_need(stages: Sequence[StageNumbers], free: float, used: Callable = used_disk) -> Need:
    """The disk of all stages together: what one stage leaves is there when the next one saves."""
    parts = []
    for stage in stages:
        if stage.model is None:
            continue
        there = used(stage.checkpoints)
        own = estimate.disk_parts(stage.model, stage.training.dtype, kept=stage.kept, recorded=stage.recorded or 0.0)
        own = [replace(part, name=f"{stage.name}: {part.name}") for part in own]
        parts += own
        if there:
            parts.append(Part(f"{stage.name}: there already", -min(there, own[0].size), "in its folder of checkpoints"))
    help_ = "free some space, choose an OUT on a larger disk, or set LORA_RANK (checkpoints hold the adapters only)"
    return Need("disk at OUT, all stages", tuple(parts), free, help_)
