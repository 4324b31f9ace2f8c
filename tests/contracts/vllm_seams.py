"""Run by test_seams.py: whether the installed vLLM is as the intervention, evaluation and the logits processor take it.

It imports and inspects, and starts no engine, so that it runs in both profiles on a machine without a GPU.
Prints one JSON line: {seam: "ok" or the error}
"""

import ast
import dataclasses
import importlib.util
import inspect
import json
import textwrap
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
STACK = {"ray", "tensordict", "torch", "transfer_queue", "transformers", "verl", "vllm"}


def parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters)


def assigned(cls) -> set[str]:
    """The attributes that a class's own methods set on `self`, and its properties."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    stored = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
    }
    return stored | {name for name, value in vars(cls).items() if isinstance(value, property)}


def every_name_that_we_import_of_the_stack_is_there():
    found = set()
    for path in (path for folder in ("avar_rl", "rewards", "data_tools") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in STACK:
                found |= {(node.module, alias.name) for alias in node.names}
    assert ("vllm.v1.worker.gpu_model_runner", "GPUModelRunner") in found and len(found) > 50
    missing = [f"{module}.{name}" for module, name in sorted(found) if not has(module, name)]
    assert not missing, missing


def has(module: str, name: str) -> bool:
    if hasattr(importlib.import_module(module), name):
        return True
    return importlib.util.find_spec(f"{module}.{name}") is not None  # a module of its own


def a_server_tells_which_process_of_its_engine_has_ended():
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.core_client import BackgroundResources, MPClient
    from vllm.v1.engine.utils import CoreEngineProcManager

    assert {"errored", "engine_core"} <= assigned(AsyncLLM) and "resources" in assigned(MPClient)
    assert {"engine_manager", "engine_dead"} <= {field.name for field in dataclasses.fields(BackgroundResources)}
    assert "failed_proc_name" in assigned(CoreEngineProcManager)
    assert parameters(CoreEngineProcManager.finished_procs) == ["self"]


def the_logits_processor_is_found_by_its_name():
    from vllm.v1.sample.logits_processor import _load_logitsprocs_by_fqcns

    engine = yaml.safe_load((ROOT / "recipes/config/grpo.yaml").read_text())["actor_rollout_ref"]["rollout"][
        "engine_kwargs"
    ]["vllm"]
    (found,) = _load_logitsprocs_by_fqcns(engine["logits_processors"])
    assert found.__name__ == "NoVisionTokens"


def the_logits_processor_has_every_method_with_the_arguments_of_vllms():
    from vllm.v1.sample.logits_processor import LogitsProcessor

    from avar_rl.verl_plugin.compat.logits_processor import NoVisionTokens

    assert LogitsProcessor.__abstractmethods__ and not NoVisionTokens.__abstractmethods__
    for name in LogitsProcessor.__abstractmethods__:
        assert parameters(getattr(NoVisionTokens, name)) == parameters(getattr(LogitsProcessor, name)), name


def a_runner_that_knows_no_logits_processors_is_not_taken_for_our_models():
    from vllm.config import VllmConfig
    from vllm.config.vllm import DEFAULT_V2_MODEL_RUNNER_ARCHITECTURES

    unsupported = inspect.getsource(VllmConfig._get_v2_model_runner_unsupported_features)
    assert "model_config.logits_processors" in unsupported
    assert not [name for name in DEFAULT_V2_MODEL_RUNNER_ARCHITECTURES if "VL" in name]


def the_intervention_imports_and_its_classes_are_registered():
    from vllm import ModelRegistry

    from avar_rl.evaluation.answering import vllm_intervention

    names = {"Intervened" + name for name in vllm_intervention._CLASSES}
    assert len(names) == 3 and names <= set(ModelRegistry.get_supported_archs())


def models_take_what_the_intervention_hands_them():
    from avar_rl.evaluation.answering.vllm_intervention import _CLASSES

    for cls in _CLASSES.values():
        model = cls.__mro__[2]  # vLLM's own, behind the mix-in
        assert model.__module__.startswith("vllm.")
        assert parameters(model.__init__)[1:] == ["vllm_config", "prefix"], model
        arguments = ["self", "input_ids", "positions", "intermediate_tensors", "inputs_embeds", "kwargs"]
        assert parameters(model.forward) == arguments, model
        assert "language_model" in {name for base in model.__mro__[:3] for name in assigned(base)}, model


def layers_are_where_the_intervention_looks():
    from vllm.model_executor.models import qwen2, qwen3

    for decoder, layer, attention in (
        (qwen2.Qwen2Model, qwen2.Qwen2DecoderLayer, qwen2.Qwen2Attention),
        (qwen3.Qwen3Model, qwen3.Qwen3DecoderLayer, qwen3.Qwen3Attention),
    ):
        assert "layers" in assigned(decoder) | assigned(decoder.__mro__[1]), decoder
        assert "self_attn" in assigned(layer) and "attn" in assigned(attention)
        assert "self.attn(q, k, v)" in inspect.getsource(attention.forward)
    assert "model" in assigned(qwen2.Qwen2ForCausalLM) & assigned(qwen3.Qwen3ForCausalLM)


def attention_is_made_and_called_as_the_wide_one_does():
    from vllm.model_executor.layers.attention import Attention

    passed = {"num_heads", "head_size", "scale", "num_kv_heads", "cache_config", "quant_config", "prefix"}
    assert passed <= set(parameters(Attention.__init__))
    kept = {"head_size", "impl", "attn_backend", "layer_name", "num_heads", "num_kv_heads", "quant_config"}
    assert kept <= assigned(Attention), kept - assigned(Attention)
    assert parameters(Attention.forward)[1:4] == ["query", "key", "value"]
    assert "compilation_config.static_forward_context[prefix] = self" in inspect.getsource(Attention.__init__)


def backends_say_which_heads_they_support():
    from vllm.v1.attention.backend import AttentionBackend, AttentionImpl
    from vllm.v1.attention.backends.flash_attn import FlashAttentionImpl

    assert parameters(AttentionBackend.supports_head_size) == ["head_size"]
    assert parameters(AttentionBackend.get_name) == []
    assert "scale" in AttentionImpl.__annotations__ | dict.fromkeys(assigned(FlashAttentionImpl))


def batches_are_read_as_the_runner_keeps_them():
    from vllm.forward_context import ForwardContext
    from vllm.v1.utils import CpuGpuBuffer
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner
    from vllm.v1.worker.gpu_input_batch import InputBatch
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    assert issubclass(CPUModelRunner, GPUModelRunner)
    assert {"input_batch", "query_start_loc"} <= assigned(GPUModelRunner)
    assert parameters(GPUModelRunner.get_model) == ["self"]
    read = {"req_ids", "num_computed_tokens_cpu", "num_prompt_tokens", "token_ids_cpu"}
    assert read <= assigned(InputBatch), read - assigned(InputBatch)
    assert "np" in assigned(CpuGpuBuffer)
    assert "attn_metadata" in {field.name for field in dataclasses.fields(ForwardContext)}


def workers_take_the_extension():
    from vllm import LLM
    from vllm.v1.worker.cpu_worker import CPUWorker
    from vllm.v1.worker.gpu_worker import Worker
    from vllm.v1.worker.worker_base import WorkerWrapperBase

    from avar_rl.evaluation.answering.vllm_intervention import WorkerExtension

    assert "worker_class.__bases__ + (" in inspect.getsource(WorkerWrapperBase)
    added = [name for name in dir(WorkerExtension) if not name.startswith("__")]
    assert added == ["show_requests_to_the_intervention"]
    for worker in (CPUWorker, Worker):
        assert not any(hasattr(worker, name) for name in added), worker
    assert "model_runner" in assigned(Worker)
    assert parameters(LLM.collective_rpc)[:2] == ["self", "method"]


def engines_take_every_option_that_evaluation_gives():
    from vllm import SamplingParams
    from vllm.distributed import cleanup_dist_env_and_memory
    from vllm.engine.arg_utils import EngineArgs

    options = {field.name for field in dataclasses.fields(EngineArgs)}
    given = "model max_model_len max_num_seqs max_num_batched_tokens limit_mm_per_prompt seed tensor_parallel_size "
    given += "disable_log_stats use_tqdm_on_load dtype gpu_memory_utilization enforce_eager skip_mm_profiling "
    given += "use_fp64_gumbel enable_chunked_prefill hf_overrides additional_config worker_extension_cls"
    assert set(given.split()) <= options, set(given.split()) - options
    assert {"temperature", "max_tokens", "logit_bias", "seed"} <= set(parameters(SamplingParams))
    assert callable(cleanup_dist_env_and_memory)


def engines_are_fed_and_stepped_as_evaluation_does():
    from vllm import LLM
    from vllm.entrypoints.offline_utils import OfflineInferenceMixin
    from vllm.v1.engine.input_processor import InputProcessor
    from vllm.v1.engine.llm_engine import LLMEngine

    assert {"prompts", "sampling_params", "use_tqdm"} <= set(parameters(LLM.enqueue))
    assert "RequestOutputKind.FINAL_ONLY" in inspect.getsource(OfflineInferenceMixin._add_request)
    assert "str(next(self.request_counter))" in inspect.getsource(OfflineInferenceMixin._add_request)
    assert 'f"{request.external_req_id}-' in inspect.getsource(InputProcessor.assign_request_id)
    assert "llm_engine" in assigned(LLM) and parameters(LLMEngine.step) == ["self"]


def a_layers_index_is_read_from_its_name():
    from vllm.model_executor.models.utils import extract_layer_index

    assert extract_layer_index("language_model.model.layers.17.self_attn.attn") == 17


SEAMS = [
    every_name_that_we_import_of_the_stack_is_there,
    a_server_tells_which_process_of_its_engine_has_ended,
    the_logits_processor_is_found_by_its_name,
    the_logits_processor_has_every_method_with_the_arguments_of_vllms,
    a_runner_that_knows_no_logits_processors_is_not_taken_for_our_models,
    the_intervention_imports_and_its_classes_are_registered,
    models_take_what_the_intervention_hands_them,
    layers_are_where_the_intervention_looks,
    attention_is_made_and_called_as_the_wide_one_does,
    backends_say_which_heads_they_support,
    batches_are_read_as_the_runner_keeps_them,
    workers_take_the_extension,
    engines_take_every_option_that_evaluation_gives,
    engines_are_fed_and_stepped_as_evaluation_does,
    a_layers_index_is_read_from_its_name,
]


def outcome(seam) -> str:
    try:
        seam()
    except Exception as error:  # noqa: BLE001 (whatever it is, the test fails with it)
        return f"{type(error).__name__}: {error}"
    return "ok"


if __name__ == "__main__":
    print(json.dumps({seam.__name__: outcome(seam) for seam in SEAMS}))
