"""verl's FSDP engine with span masses: for the guided loss in training, for attention rewards in the old-log-prob pass.

The engine's own forward is untouched. Around it, a `SpanMassRecorder` is started on the very input ids that the model
sees (padded, or packed with `use_remove_padding`) and what it recorded is added to verl's `model_output` as nested
(jagged) tensors, which verl carries back to the trainer.
"""

from pathlib import Path

from tensordict import TensorDict
from verl.utils.ulysses import gather_outputs_and_unpad
from verl.workers.engine import EngineRegistry

from avar_rl.attention.recorder import SpanMassRecorder
from avar_rl.attention.roles import Markup, role_spans
from avar_rl.guidance import GUIDED_ROLES, GuidanceConfig
from avar_rl.verl_plugin.adapters import AdapterCheckpoint, in_float32, without_input_gradients
from avar_rl.verl_plugin.checkpoints import earlier_checkpoints
from avar_rl.verl_plugin.config.model_checks import check_ulysses
from avar_rl.verl_plugin.forward.layout import Layout, layout_of
from avar_rl.verl_plugin.forward.outputs import guidance_outputs, mass_outputs
from avar_rl.verl_plugin.forward.request import requested
from avar_rl.verl_plugin.forward.support import leave_out_the_unsampled
from avar_rl.verl_plugin.verl_engine import LanguageModelEngine


class SpanMassEngine(LanguageModelEngine):
    """verl's engine, which also records span masses where the trainer asks for them or a guided loss needs them."""

    guidance: GuidanceConfig | None = None  # set by the SFT trainer; None or zero weights: plain SFT, nothing recorded
    _recorder: SpanMassRecorder | None = None
    _markup: Markup | None = None
    _layout: Layout | None = None
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
        wanted, guidance = requested(micro_batch).attention, self.guidance
        self._layout = None
        if self._recorder is not None:
            self._recorder.stop()
        if wanted is not None:
            self._start_recording(micro_batch, model_inputs, output_args, "response", wanted.layers)
        elif guidance is not None and guidance.enabled:
            self._start_recording(micro_batch, model_inputs, output_args, guidance.queries, guidance.layers)
        return model_inputs, output_args

    def prepare_model_outputs(self, output, output_args, micro_batch: TensorDict, logits_processor_func):
        # Of reinforcement learning (SFT's have none), and not by fused kernels, which keep no logits.
        if "response_mask" in micro_batch.keys() and getattr(output, "logits", None) is not None:
            leave_out_the_unsampled(output.logits, self.model_config)
        model_output = super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
        if self._layout is not None and self._recorder is not None:
            masses_LBSHQ = self._recorder.finish().stack()
            if self.use_ulysses_sp:  # each rank recorded its heads; the gradients of all ranks are averaged by FSDP
                masses_LBSHQ = gather_outputs_and_unpad(masses_LBSHQ.contiguous(), gather_dim=3, grad_scaler=True)
            if requested(micro_batch).attention is not None:
                model_output.update(mass_outputs(masses_LBSHQ, self._layout))
            elif self.guidance is not None:
                model_output.update(guidance_outputs(masses_LBSHQ, self._layout, self.guidance))
        return model_output

    def _start_recording(self, micro_batch, model_inputs, output_args, queries: str, layers) -> None:
        check_ulysses(self.module.config.model_type, self.ulysses_sequence_parallel_size)
        if self._recorder is None or self._markup is None:
            self._recorder = SpanMassRecorder(self.module)
            self._markup = Markup.from_tokenizer(self.model_config.tokenizer)
        pad_size = output_args.get("pad_size", 0)
        ids_BT, mask_BT = model_inputs["input_ids"], model_inputs["attention_mask"]
        layout = self._layout = layout_of(micro_batch, ids_BT, mask_BT, pad_size, self._markup, queries)
        self._recorder.start(
            role_spans(layout.roles_BT, GUIDED_ROLES),
            query_positions=layout.positions_BQ,
            layers=layers,
            cu_seqlens=layout.cu_seqlens,
            valid=layout.valid_BT,
        )


# A vendor key beats verl's own registration, so no strategy name changes and nothing is patched.
EngineRegistry.register(
    model_type="language_model", backend=["fsdp", "fsdp2"], device="cuda", vendor=["cpu", "nvidia"]
)(SpanMassEngine)
