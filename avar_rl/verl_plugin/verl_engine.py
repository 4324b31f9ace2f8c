"""verl's FSDP engine for language models, with the types that the decorator which registers it hides from a checker."""

from typing import TYPE_CHECKING, Any

from tensordict import TensorDict
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

if TYPE_CHECKING:
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngine

    class LanguageModelEngine(FSDPEngine):
        use_ulysses_sp: bool
        module: Any
        model_config: Any
        checkpoint_manager: Any

        def load_checkpoint(self, local_path: str | None, *args: Any, **kwargs: Any) -> None: ...

        def forward_step(self, micro_batch: TensorDict, loss_function: Any, forward_only: bool) -> Any: ...

        def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict[str, Any], dict[str, Any]]: ...

        def prepare_model_outputs(
            self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Any
        ) -> dict[str, Any]: ...

else:
    LanguageModelEngine = FSDPEngineWithLMHead
