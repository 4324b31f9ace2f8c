"""verl's FSDP engine with span masses: for the guided loss in training, for attention rewards in the old-log-prob pass;
with masked images, for the blind pass; and with terms beside the policy loss in GRPO's updates.

The engine's own forward is untouched. Around it, a `SpanMassRecorder` is started on the very input ids that the model
sees (padded, or packed with `use_remove_padding`) and what it recorded is added to verl's `model_output` as nested
(jagged) tensors, which verl carries back to the trainer.
"""

from functools import partial
from pathlib import Path
from typing import Any

from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu
from verl.utils.ulysses import gather_outputs_and_unpad
from verl.workers.engine import EngineRegistry

from avar_rl.attention.recorder import SpanMassRecorder
from avar_rl.attention.roles import Markup, Role, role_spans
from avar_rl.blind import BlindSettings, PatchFormat
from avar_rl.guidance import GUIDED_ROLES, GuidanceConfig
from avar_rl.verl_plugin.adapters import AdapterCheckpoint, in_float32, without_input_gradients
from avar_rl.verl_plugin.checkpoints import earlier_checkpoints
from avar_rl.verl_plugin.config.model_checks import check_ulysses
from avar_rl.verl_plugin.forward.blind import blind_outputs, blinded
from avar_rl.verl_plugin.forward.layout import ImageGrids, Layout, layout_of
from avar_rl.verl_plugin.forward.losses import LossWithTerms
from avar_rl.verl_plugin.forward.outputs import guidance_outputs, mass_outputs
from avar_rl.verl_plugin.forward.request import REQUEST, ForwardRequest, requested
from avar_rl.verl_plugin.forward.support import leave_out_the_unsampled
from avar_rl.verl_plugin.verl_engine import LanguageModelEngine
from rewards.losses import ActorLossSet, LossTerm


class SpanMassEngine(LanguageModelEngine):
    """verl's engine, which also records span masses where the trainer asks for them or a guided loss needs them, and
    masks images where the trainer asks for a blind pass."""

    guidance: GuidanceConfig | None = None  # set by the SFT trainer; None or zero weights: plain SFT, nothing recorded
    _recorder: SpanMassRecorder | None = None
    _markup: Markup | None = None
    _layout: Layout | None = None
    _patch_format: PatchFormat | None = None
    _adapters: AdapterCheckpoint | None = None
    _bound: tuple[tuple[LossTerm, ...], ActorLossSet] | None = None  # of the last update, which the next one repeats

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

    def forward_step(self, micro_batch: TensorDict, loss_function: Any, forward_only: bool):
        losses = requested(micro_batch).losses
        if losses is not None and loss_function is not None:
            blind = None if losses.blind is None else partial(self._blind_outputs, settings=losses.blind)
            loss_function = LossWithTerms(loss_function, self._functions(losses.terms), blind)
        return super().forward_step(micro_batch, loss_function, forward_only)

    def _functions(self, terms: tuple[LossTerm, ...]) -> ActorLossSet:
        if self._bound is None or self._bound[0] != terms:
            self._bound = terms, ActorLossSet(terms)
        return self._bound[1]

    def _blind_outputs(self, micro_batch: TensorDict, settings: BlindSettings) -> dict[str, Tensor]:
        """verl's outputs of a second pass over a micro-batch, with masked images. Every rank runs it, with images or
        not: the layers' parameters are gathered from all of them."""
        blind_batch = micro_batch.copy()
        tu.assign_non_tensor(blind_batch, **{REQUEST: ForwardRequest(blind=settings)})
        model_inputs, output_args = self.prepare_model_inputs(blind_batch)
        output = self.module(**model_inputs, use_cache=False)
        return self._stock_outputs(output, output_args, blind_batch, None)

    def prepare_model_inputs(self, micro_batch: TensorDict):
        model_inputs, output_args = super().prepare_model_inputs(micro_batch)
        request, guidance = requested(micro_batch), self.guidance
        self._layout = None
        if self._recorder is not None:
            self._recorder.stop()
        if request.blind is not None:
            model_inputs = self._blind(micro_batch, model_inputs, request.blind)
        if request.attention is not None:
            layers, region = request.attention.layers, request.region
            self._start_recording(micro_batch, model_inputs, output_args, "response", layers, region=region)
        elif guidance is not None and guidance.enabled:
            self._start_recording(micro_batch, model_inputs, output_args, guidance.queries, guidance.layers)
        return model_inputs, output_args

    def prepare_model_outputs(self, output, output_args, micro_batch: TensorDict, logits_processor_func):
        model_output = self._stock_outputs(output, output_args, micro_batch, logits_processor_func)
        if self._layout is not None and self._recorder is not None:
            masses_LBSHQ = self._recorder.finish().stack()
            if self.use_ulysses_sp:  # each rank recorded its heads; the gradients of all ranks are averaged by FSDP
                masses_LBSHQ = gather_outputs_and_unpad(masses_LBSHQ.contiguous(), gather_dim=3, grad_scaler=True)
            if requested(micro_batch).attention is not None:
                model_output.update(mass_outputs(masses_LBSHQ, self._layout))
            elif self.guidance is not None:
                model_output.update(guidance_outputs(masses_LBSHQ, self._layout, self.guidance))
        if requested(micro_batch).blind is not None:
            model_output = blind_outputs(model_output, micro_batch)
        return model_output

    def _stock_outputs(self, output, output_args, micro_batch: TensorDict, logits_processor_func) -> dict[str, Tensor]:
        """verl's log-probabilities and entropies, over what the rollout may sample where there was one (in GRPO, not in
        SFT; fused kernels keep no logits)."""
        if "response_mask" in micro_batch.keys() and getattr(output, "logits", None) is not None:
            leave_out_the_unsampled(output.logits, self.model_config)
        return super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)

    def _blind(self, micro_batch: TensorDict, model_inputs: dict[str, Any], settings: BlindSettings) -> dict[str, Any]:
        """`model_inputs` with masked images, for a forward pass with or without gradients; see `forward.blind`."""
        if self._patch_format is None:
            self._patch_format = PatchFormat.of(self.model_config.processor.image_processor)
        return blinded(model_inputs, micro_batch, settings, self._patch_format)

    def _start_recording(
        self, micro_batch, model_inputs, output_args, queries: str, layers, *, region: bool = False
    ) -> None:
        check_ulysses(self.module.config.model_type, self.ulysses_sequence_parallel_size)
        if self._recorder is None or self._markup is None:
            self._recorder = SpanMassRecorder(self.module)
            self._markup = Markup.from_tokenizer(self.model_config.tokenizer)
        pad_size = output_args.get("pad_size", 0)
        ids_BT, mask_BT = model_inputs["input_ids"], model_inputs["attention_mask"]
        grids = None
        if region:
            merge_size = self.model_config.processor.image_processor.merge_size
            grids = ImageGrids(model_inputs.get("image_grid_thw"), merge_size)
        layout = self._layout = layout_of(micro_batch, ids_BT, mask_BT, pad_size, self._markup, queries, grids)
        self._recorder.start(
            role_spans(layout.roles_BT, (*GUIDED_ROLES, Role.REGION) if region else GUIDED_ROLES),
            query_positions=layout.positions_BQ,
            layers=layers,
            cu_seqlens=layout.cu_seqlens,
            valid=layout.valid_BT,
        )


# A vendor key beats verl's own registration, so no strategy name changes and nothing is patched.
EngineRegistry.register(
    model_type="language_model", backend=["fsdp", "fsdp2"], device="cuda", vendor=["cpu", "nvidia"]
)(SpanMassEngine)
