"""Estimates of the memory and disk that a training takes: numbers in, numbers out.

All sizes are bytes; tables show GB of 10^9. Parameters, gradients, optimizer and checkpoints are exact, the rest are
estimates that say what they rest on. A sum of parts is an upper bound: not every part is at its largest at one time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GB = 10**9
NEAR = 0.9  # from this share of what there is on, a need is worth a warning

BF16, FP32 = 2, 4
_FUSED_CHUNK = (
    512  # tokens whose logits verl's fused kernel holds at a time (verl/utils/experimental/torch_functional.py)
)
# A process on a card: CUDA context, NCCL, cuBLAS workspaces, fragmentation of the allocator. Estimated, not measured.
CUDA_PROCESS = 2 * GB
# Memory of the processes of verl and Ray with one device, and with each further one. The first was measured: 9.2 GiB,
# the miniature's GRPO stage (docs/tiny.md). The second is an estimate: an actor and a rollout engine.
_FIRST_DEVICE, _FURTHER_DEVICE, _SFT_RANK = 10 * GB, 5 * GB, 3 * GB
_RECORD_PER_TOKEN = (
    14  # bytes of the rollout record: 60 MB a step of 2,048 responses of 2,048 tokens (qwen7b_grpo.yaml)
)


@dataclass(frozen=True)
class ModelSizes:
    """What a model's configuration says about its size.

    parameters: all of them, tied ones once. root: those outside of all FSDP2 units. unit: those of the largest unit.
    layer: those of a decoder layer. adapters: those that LoRA adds; 0 without. rank_one: those that LoRA of rank 1
    would add to the language model. tensors: how many tensors the parameters are.
    attention, key_value: widths of the queries and of the keys (heads times size of a head).
    patch_size: pixels along a patch. patch_values: numbers that the processor makes of one. patches_per_token: patches
    that one image token stands for.
    """

    parameters: int
    root: int
    unit: int
    layer: int
    tensors: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    heads: int
    key_value_heads: int
    attention: int
    key_value: int
    vision_layers: int
    vision_hidden: int
    vision_intermediate: int
    patch_size: int
    patch_values: int
    patches_per_token: int
    tied: bool = False
    qk_norm: bool = False
    rank_one: int = 0
    adapters: int = 0

    @property
    def trained(self) -> int:
        """The parameters that an optimizer changes."""
        return self.adapters or self.parameters


@dataclass(frozen=True)
class Training:
    """How a model is trained.

    gpus: cards that share the states. dtype: bytes of a stored parameter, its gradient and each of Adam's two moments.
    compute: bytes of a number in the forward pass. tokens: of a micro-batch on one card. image_share: of those tokens.
    host_states: parameters, gradients and moments stay on the host while training (`offload_policy`).
    """

    gpus: int
    tokens: int
    dtype: int = FP32
    compute: int = BF16
    image_share: float = 0.5
    checkpointing: bool = True
    fused: bool = False
    host_states: bool = False


@dataclass(frozen=True)
class RolloutEngine:
    """A vLLM engine beside the actor.

    share: of the card that the engine takes, its `gpu_memory_utilization`. length: of the longest sequence, in tokens.
    host_parameters, host_optimizer: the actor's parameters, and its gradients and moments, are on the host meanwhile.
    stays: the engine keeps its share while the actor trains, too.
    """

    share: float
    tensor_parallel: int
    length: int
    dtype: int = BF16
    host_parameters: bool = False
    host_optimizer: bool = False
    stays: bool = False


@dataclass(frozen=True)
class Part:
    """One line of an estimate: what, how many bytes, and what the figure rests on. rough: nothing is refused for it."""

    name: str
    size: float
    basis: str
    rough: bool = False


def total(parts: Sequence[Part]) -> float:
    """The sum of the parts, in bytes."""
    return sum(part.size for part in parts)


def states(model: ModelSizes, dtype: int) -> tuple[int, int, int]:
    """Bytes of parameters, gradients and Adam's moments (exp_avg, exp_avg_sq) in all: each in the stored dtype, and in
    fp32 where only adapters are trained."""
    trained = FP32 if model.adapters else dtype
    return model.parameters * dtype + model.adapters * FP32, model.trained * trained, 2 * model.trained * trained


def layer_saved(model: ModelSizes) -> int:
    """Bytes that autograd keeps of one decoder layer per token, in bf16, with a flash kernel.

    8 I: gate, up, their activation and product; 16 H + 4 A + 6 K: two norms (half of it in fp32), queries, keys,
    values, attention. Norms of queries and keys (Qwen3) add 6 A + 4 K. Fitted to, and tested against, what
    `torch.autograd.graph.saved_tensors_hooks` counts.
    """
    kept = 8 * model.intermediate + 16 * model.hidden + 4 * model.attention + 6 * model.key_value
    return kept + (6 * model.attention + 4 * model.key_value if model.qk_norm else 0)


def training_parts(model: ModelSizes, run: Training) -> list[Part]:
    """Memory of one card during forward and backward."""
    parameters, gradients, moments = (0 if run.host_states else size / run.gpus for size in states(model, run.dtype))
    each = f"{run.dtype} B each, over {run.gpus} GPUs"
    trained = "on the host" if run.host_states else f"of the adapters, {FP32} B each" if model.adapters else each
    patches = 0 if model.adapters else run.tokens * run.image_share * model.patches_per_token
    inputs = run.tokens * model.hidden * model.layers + patches * model.vision_hidden * model.vision_layers
    # While a layer is recomputed: what it keeps, keys and values repeated for all heads (verl), and two gradients as
    # wide as the MLP.
    language = run.tokens * (layer_saved(model) + 4 * model.attention + 4 * model.intermediate)
    vision = patches * (12 * model.vision_intermediate + 26 * model.vision_hidden)
    layer = max(language, vision) * run.compute / BF16
    kept, recomputed = inputs * run.compute, "layer inputs only (gradient checkpointing)"
    if not run.checkpointing:
        kept, recomputed = layer * model.layers, "every layer whole (no gradient checkpointing)"
    return [
        Part("parameters", parameters, "on the host" if run.host_states else each),
        Part("gradients", gradients, trained),
        Part("optimizer (Adam)", moments, trained),
        Part("gather and reduce", _gathered(model, run), "FSDP2: the largest unit and a layer at a time"),
        Part("activations", kept, f"{recomputed}, {run.tokens} tokens"),
        Part("recomputed layer", layer if run.checkpointing else 0, "the larger of a language and a vision layer"),
        Part("logits", _logits(model, run), "by chunks (fused kernels)" if run.fused else "of the whole micro-batch"),
        Part("process", CUDA_PROCESS, "CUDA context, NCCL, fragmentation"),
    ]  # fmt: skip


def _gathered(model: ModelSizes, run: Training) -> float:
    """Unsharded parameters in the compute dtype; of what is trained, the unsharded gradient and its copy in fp32.

    Fused kernels read the output matrix, which then belongs to the root and stays gathered (compat/patches.py).
    """
    root = model.root + (model.vocabulary * model.hidden if run.fused and not model.tied else 0)
    parameters = run.compute * (root + model.unit + model.layer)
    if model.adapters:
        return parameters
    return parameters + (run.compute + FP32) * (max(root, model.unit) + model.layer)


def _logits(model: ModelSizes, run: Training) -> float:
    """Whole: a number for each token and word, in the compute dtype. Fused: three fp32 numbers for each word and token
    of a chunk, and the gradient of the output matrix, where that is trained."""
    if not run.fused:
        return run.compute * run.tokens * model.vocabulary
    weights = 0 if model.adapters else run.compute * model.vocabulary * model.hidden
    return 3 * FP32 * min(_FUSED_CHUNK, run.tokens) * model.vocabulary + weights


def key_value_bytes(model: ModelSizes, rollout: RolloutEngine) -> float:
    """Bytes of the KV cache for one token on each of the engine's cards: a key and a value for every layer."""
    return 2 * model.layers * model.key_value * rollout.dtype / rollout.tensor_parallel


def rollout_parts(model: ModelSizes, rollout: RolloutEngine, run: Training, card: float) -> list[Part]:
    """Memory of one card of `card` bytes while vLLM answers. The KV cache is what the engine's share leaves over; it is
    negative where the weights alone take more."""
    weights = (model.parameters + model.adapters) * rollout.dtype / rollout.tensor_parallel
    cache = rollout.share * card - weights - CUDA_PROCESS
    parameters, gradients, moments = (size / run.gpus for size in states(model, run.dtype))
    left = (0 if rollout.host_parameters else parameters) + (0 if rollout.host_optimizer else gradients + moments)
    left = 0 if run.host_states else left
    tokens = max(0, cache) / key_value_bytes(model, rollout)
    return [
        Part("rollout weights", weights, f"{rollout.dtype} B each, over {rollout.tensor_parallel} GPUs"),
        Part("KV cache", cache, f"{tokens:,.0f} tokens, {tokens / rollout.length:,.0f} sequences of {rollout.length}"),
        Part("rollout process", CUDA_PROCESS, "CUDA context, graphs, activations"),
        Part("actor meanwhile", left, "its parameters, gradients, optimizer" if left else "on the host"),
        Part("process", CUDA_PROCESS, "CUDA context, NCCL, fragmentation"),
    ]


def pixel_bytes(model: ModelSizes, image_tokens: int, number: int = FP32) -> int:
    """Bytes of the pixel values of an image of that many tokens; `number`: bytes of each of its numbers."""
    return image_tokens * model.patches_per_token * model.patch_values * number


def process_part(ranks: int, rollout: RolloutEngine | None) -> Part:
    """Memory of the processes of a node with that many ranks, without the model."""
    if rollout is None:
        return Part("processes", ranks * _SFT_RANK, f"ranks: {ranks}", rough=True)
    size = _FIRST_DEVICE + (ranks - 1) * _FURTHER_DEVICE
    return Part("processes", size, f"Ray, verl, vLLM; devices: {ranks}", rough=True)


def host_parts(
    model: ModelSizes, run: Training, *, nodes: int, rollout: RolloutEngine | None = None, pixels: float = 0.0
) -> list[Part]:
    """Memory of a node's host. `pixels`: pixel values that the queue of a step holds, in bytes."""
    ranks = run.gpus // nodes
    parameters, gradients, moments = (size / nodes for size in states(model, run.dtype))
    resident = 0.0
    if run.host_states:
        resident = parameters + gradients + moments
    elif rollout is not None:
        resident = (parameters if rollout.host_parameters else 0) + (moments if rollout.host_optimizer else 0)
    # Without tied embeddings verl loads the model in one rank; with them, in each (transformer_impl.py, meta tensors).
    loading = model.parameters * run.dtype * (ranks if model.tied else 1)
    basis = "offloaded states" if resident > loading else "while the model is loaded"
    parts = [Part("states on the host", max(resident, loading), basis), process_part(ranks, rollout)]
    if rollout is None:
        return parts
    asleep = model.parameters * rollout.dtype * ranks / rollout.tensor_parallel if model.adapters else 0
    basis = "LoRA: vLLM keeps the base model on the host" if model.adapters else "dropped, and sent anew"
    return [
        *parts,
        Part("pixel values of a step", pixels, "in verl's queue, until the update"),
        Part("sleeping rollout weights", asleep, basis),
    ]


def checkpoint_bytes(model: ModelSizes, dtype: int) -> int:
    """The tensors of one checkpoint: what is trained, Adam's moments, and its step of 4 bytes for each trained tensor
    (adapters have a few hundred tensors, which are left out)."""
    parameters, _, moments = states(model, dtype)
    if model.adapters:  # the adapters twice: in verl's file and in PEFT's format (checkpoint.save_lora_only)
        return 2 * model.adapters * FP32 + moments
    return parameters + moments + FP32 * model.tensors


def disk_parts(model: ModelSizes, dtype: int, *, kept: int, recorded: float = 0.0) -> list[Part]:
    """Disk of a stage: its checkpoints, what the export makes of the last, and the record of `recorded` tokens."""
    parts = [
        Part("checkpoints", kept * checkpoint_bytes(model, dtype), f"{kept} at a time"),
        Part(
            "merged weights",
            0 if model.adapters else model.parameters * dtype,
            "beside the last checkpoint, by the export",
        ),
        Part("exported model", model.parameters * BF16, "in the base model's dtype"),
    ]
    return (
        [*parts, Part("rollout record", recorded * _RECORD_PER_TOKEN, "by the tokens answered")] if recorded else parts
    )


def image_tokens(pixels: int, model: ModelSizes) -> int:
    """The tokens of an image of that many pixels, rounded down, as the processor rounds below its limit."""
    return pixels // (model.patch_size**2 * model.patches_per_token)
