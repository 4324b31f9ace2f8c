"""verl's FSDP engine with span masses: for the guided loss in training, for attention rewards in the old-log-prob pass.

The engine's own forward is untouched. Around it, a `SpanMassRecorder` is started on the very input ids that the model
sees (padded, or packed with `use_remove_padding`) and what it recorded is added to verl's `model_output` as nested
(jagged) tensors, which verl carries back to the trainer.

Shapes: B rows of the input (1 when packed), N sequences of the micro-batch (B = N unless packed), T tokens, S = 2 spans
(IMAGE, SYSTEM), H heads, L layers, Q queries.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.ulysses import gather_outputs_and_unpad
from verl.workers.engine import EngineRegistry

from avar_rl.attention.recorder import SpanMassRecorder
from avar_rl.attention.roles import Markup, Role, query_positions, role_counts, role_spans, token_roles
from avar_rl.guidance import GUIDED_ROLES, GuidanceConfig, guidance_terms
from avar_rl.verl_plugin.adapters import AdapterCheckpoint, in_float32, without_input_gradients
from avar_rl.verl_plugin.checkpoints import earlier_checkpoints
from avar_rl.verl_plugin.config.model_checks import check_ulysses
from avar_rl.verl_plugin.config.settings import AttentionSettings
from avar_rl.verl_plugin.verl_engine import LanguageModelEngine

MASS_REQUEST = "avar_masses"  # key of the trainer's request in a batch's extra_info
MASS_COLUMNS = ("image_mass", "system_mass")  # what comes back, flat: see `_mass_outputs`


@dataclass
class _Layout:
    """One micro-batch as the model sees it."""

    input_ids_BT: torch.Tensor
    valid_BT: torch.Tensor
    cu_seqlens: torch.Tensor | None  # (N+1,) when packed; (N+2,) where verl filled the packed batch up
    offsets: torch.Tensor  # (N+1,) jagged offsets of the micro-batch
    lengths: list[int]  # (N,) of the responses; in SFT, of the whole sequences
    roles_BT: torch.Tensor
    positions_BQ: torch.Tensor


class SpanMassEngine(LanguageModelEngine):
    """verl's engine, which also records span masses where the trainer asks for them or a guided loss needs them."""

    guidance: GuidanceConfig | None = None  # set by the SFT trainer; None or zero weights: plain SFT, nothing recorded
    _recorder: SpanMassRecorder | None = None
    _markup: Markup | None = None
    _layout: _Layout | None = None
    _adapters: AdapterCheckpoint | None = None

    def _build_lora_module(self, module):
        module = super()._build_lora_module(without_input_gradients(module))
        return in_float32(module) if self.engine_config.strategy == "fsdp2" else module

    def initialize(self):
        super().initialize()
        if self.model_config.lora_rank > 0 and not self.engine_config.forward_only:
            self._adapters = AdapterCheckpoint(self)

    def save_checkpoint(self, local_path: str, *args, **kwargs) -> None:
        super().save_checkpoint(local_path, *args, **kwargs)
        if self._adapters is not None:
            self._adapters.write(Path(local_path))

    def load_checkpoint(self, local_path: str | None, *args, **kwargs) -> None:
        """verl's own, which forgets what is on the disk: `max_ckpt_to_keep` more would be kept at each resume."""
        super().load_checkpoint(local_path, *args, **kwargs)
        if local_path is not None:
            self.checkpoint_manager.previous_saved_paths = earlier_checkpoints(Path(local_path))

    def prepare_model_inputs(self, micro_batch: TensorDict):
        model_inputs, output_args = super().prepare_model_inputs(micro_batch)
        wanted, guidance = _requested(micro_batch), self.guidance
        self._layout = None
        if self._recorder is not None:
            self._recorder.stop()
        if wanted is not None:
            self._start_recording(micro_batch, model_inputs, output_args, "response", wanted.layers)
        elif guidance is not None and guidance.enabled:
            self._start_recording(micro_batch, model_inputs, output_args, guidance.queries, guidance.layers)
        return model_inputs, output_args

    def prepare_model_outputs(self, output, output_args, micro_batch: TensorDict, logits_processor_func):
        model_output = super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
        if self._layout is not None and self._recorder is not None:
            masses_LBSHQ = self._recorder.finish().stack()
            if self.use_ulysses_sp:  # each rank recorded its heads; the gradients of all ranks are averaged by FSDP
                masses_LBSHQ = gather_outputs_and_unpad(masses_LBSHQ.contiguous(), gather_dim=3, grad_scaler=True)
            if _requested(micro_batch) is not None:
                model_output.update(_mass_outputs(masses_LBSHQ, self._layout))
            elif self.guidance is not None:
                model_output.update(_guidance_outputs(masses_LBSHQ, self._layout, self.guidance))
        return model_output

    def _start_recording(self, micro_batch, model_inputs, output_args, queries: str, layers) -> None:
        check_ulysses(self.module.config.model_type, self.ulysses_sequence_parallel_size)
        if self._recorder is None or self._markup is None:
            self._recorder = SpanMassRecorder(self.module)
            self._markup = Markup.from_tokenizer(self.model_config.tokenizer)
        ids_BT = model_inputs["input_ids"]
        offsets = micro_batch["input_ids"].offsets()
        cu_seqlens, valid_BT = _visible(ids_BT, model_inputs["attention_mask"], offsets, output_args.get("pad_size", 0))
        response_BT = torch.zeros_like(valid_BT)
        response_BT[valid_BT] = _response_tokens(micro_batch, offsets)
        roles_BT = token_roles(
            ids_BT,
            self._markup,
            attention_mask=valid_BT,
            cu_seqlens=cu_seqlens,
            response_mask=response_BT,
        )
        _require_system(roles_BT, cu_seqlens)
        positions_BQ = query_positions(roles_BT, queries, cu_seqlens=cu_seqlens)
        lengths = micro_batch["response_mask"].offsets() if "response_mask" in micro_batch.keys() else offsets
        self._layout = _Layout(ids_BT, valid_BT, cu_seqlens, offsets, lengths.diff().tolist(), roles_BT, positions_BQ)
        spans_BST = role_spans(roles_BT, GUIDED_ROLES)
        self._recorder.start(
            spans_BST, query_positions=positions_BQ, layers=layers, cu_seqlens=cu_seqlens, valid=valid_BT
        )


# A vendor key beats verl's own registration, so no strategy name changes and nothing is patched.
EngineRegistry.register(
    model_type="language_model", backend=["fsdp", "fsdp2"], device="cuda", vendor=["cpu", "nvidia"]
)(SpanMassEngine)


def _requested(micro_batch: TensorDict) -> AttentionSettings | None:
    """What the trainer wants to be recorded in this batch; None: nothing."""
    found: Any = tu.get_non_tensor_data(micro_batch, MASS_REQUEST, default=None)
    return found


def _visible(ids_BT, attention_mask, offsets, pad_size: int) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Borders of a packed batch (None if padded) and which tokens are no padding. Where verl filled a packed batch up
    (Ulysses, pad_to_length), the filling at its end is a sequence of its own."""
    if attention_mask is not None:
        return None, attention_mask.bool()
    cu_seqlens = offsets.to(torch.int32)
    if pad_size:
        cu_seqlens = torch.cat([cu_seqlens, cu_seqlens[-1:] + pad_size])
    return cu_seqlens, (torch.arange(ids_BT.shape[1], device=ids_BT.device) < offsets[-1])[None]


def _require_system(roles_BT: torch.Tensor, cu_seqlens: torch.Tensor | None) -> None:
    """Every sequence with a response has a system turn. verl's filler rows (padding_utils.py:139) have neither."""
    counts_NS = role_counts(roles_BT, [Role.SYSTEM, Role.RESPONSE], cu_seqlens=cu_seqlens)
    without = ((counts_NS[:, 0] == 0) & (counts_NS[:, 1] > 0)).nonzero()[:, 0].tolist()
    if without:
        raise ValueError(
            f"rows {without} of a micro-batch have no SYSTEM token, which span masses are measured against: "
            "the chat template must write a system turn, as Qwen's does by default"
        )


def _response_tokens(micro_batch: TensorDict, offsets: torch.Tensor) -> torch.Tensor:
    """Flat bool (offsets[-1],): the response tokens, by verl's own masks (SFT: loss_mask; GRPO: response_mask)."""
    if "response_mask" not in micro_batch.keys():
        return _jagged(micro_batch, "loss_mask")[0].bool()
    mask, mask_offsets = _jagged(micro_batch, "response_mask")
    flat = torch.zeros(int(offsets[-1]), dtype=torch.bool, device=mask.device)
    lengths = mask_offsets.diff()
    starts = offsets[1:] - lengths  # responses are the tails of their sequences
    index = torch.arange(len(mask), device=flat.device) - mask_offsets[:-1].repeat_interleave(lengths)
    flat[index + starts.repeat_interleave(lengths)] = mask.bool()
    return flat


def _jagged(batch: TensorDict, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The values of a nested column, row after row, and the (N+1,) offsets at which its rows begin and end."""
    column: Any = batch[name]
    return column.values(), column.offsets()


def _mass_outputs(masses_LBSHQ: torch.Tensor, layout: _Layout) -> dict[str, torch.Tensor]:
    """Image and system mass of each token of the response, heads averaged; 0 where the policy did not write it.

    Nested with T * L values a row (all layers of a token side by side): verl carries rows of one dimension best.
    """
    image_LBQ, system_LBQ = masses_LBSHQ.mean(dim=3).unbind(dim=2)
    return {"image_mass": _per_token(image_LBQ, layout), "system_mass": _per_token(system_LBQ, layout)}


def _per_token(value_LBQ: torch.Tensor, layout: _Layout) -> torch.Tensor:
    layers = len(value_LBQ)
    dense_BTL = torch.zeros((*layout.input_ids_BT.shape, layers), dtype=torch.float32, device=value_LBQ.device)
    recorded_BQ = layout.positions_BQ >= 0
    batch_index = torch.arange(len(dense_BTL), device=dense_BTL.device)[:, None].expand_as(layout.positions_BQ)
    value_BQL = value_LBQ.permute(1, 2, 0).float()
    dense_BTL[batch_index[recorded_BQ], layout.positions_BQ[recorded_BQ]] = value_BQL[recorded_BQ]
    flat_XL, ends = dense_BTL[layout.valid_BT], layout.offsets[1:].tolist()
    responses = [flat_XL[end - n : end] for end, n in zip(ends, layout.lengths, strict=True)]
    offsets = torch.tensor([0, *layout.lengths], device=flat_XL.device).cumsum(0) * layers
    return torch.nested.nested_tensor_from_jagged(torch.cat(responses).flatten(), offsets)


def _guidance_outputs(masses_LBSHQ: torch.Tensor, layout: _Layout, config: GuidanceConfig) -> dict[str, torch.Tensor]:
    """L_enh and L_sup of each sequence (see `avar_rl.guidance`), 0 without an image.

    Nested, with one value in each row, as verl wants.
    """
    terms = guidance_terms(masses_LBSHQ, layout.positions_BQ, layout.roles_BT, config, cu_seqlens=layout.cu_seqlens)
    sequences = len(layout.offsets) - 1  # without the filling
    offsets = torch.arange(sequences + 1, device=terms.enhance_N.device)
    return {
        "guidance_enhance": torch.nested.nested_tensor_from_jagged(terms.enhance_N[:sequences], offsets),
        "guidance_suppress": torch.nested.nested_tensor_from_jagged(terms.suppress_N[:sequences], offsets),
    }
