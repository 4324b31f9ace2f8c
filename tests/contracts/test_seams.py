"""Every place of torch, transformers, verl, its queue and vLLM that we hook or import is as we take it.

These run in both profiles, whose versions differ, and need neither a GPU nor an engine (`make test-gpu-profile`). What
verl's trainers, engines and reward loop look like is in test_patches.py.
"""

import ast
import functools
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from avar_rl.verl_plugin.config import environment

environment.prepare("cpu")  # before anything imports verl

from avar_rl.attention import kernel_lse  # noqa: E402
from tests.contracts import vllm_seams  # noqa: E402
from tests.numerics.tiny_qwen import FAMILIES, make_model  # noqa: E402

ROOT = Path(__file__).parents[2]


def parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_familys_attention_is_looked_up_in_transformers_registry_when_it_runs(family, monkeypatch):
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    model = make_model("sdpa", family)
    seen = []

    def attention(module, query, key, value, attention_mask, **kwargs):
        seen.append((module, query.shape, key.shape, kwargs["scaling"]))
        return stock(module, query, key, value, attention_mask, **kwargs)

    stock = ALL_ATTENTION_FUNCTIONS["sdpa"]
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "sdpa", attention)
    model(input_ids=torch.tensor([[10, 11, 12]]))
    layers = [layer.self_attn for layer in model.get_decoder().layers]
    assert [module for module, *_ in seen] == layers  # the language model's alone: there is no image
    head = model.config.get_text_config().hidden_size // 4
    assert {tuple(query) for _, query, _, _ in seen} == {(1, 4, 3, head)}
    assert {tuple(key) for _, _, key, _ in seen} == {(1, 2, 3, head)}
    assert all(scaling == pytest.approx(head**-0.5) for *_, scaling in seen)
    for module in layers:
        assert module.config._attn_implementation == "sdpa"
        assert {"q_proj", "k_proj"} <= dict(module.named_children()).keys() and isinstance(module.layer_idx, int)
        assert callable(sys.modules[type(module).__module__].eager_attention_forward)


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_gives_every_layer_torchs_checkpoint_which_takes_contexts(family):
    model = make_model("sdpa", family)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for layer in model.get_decoder().layers:
        function = layer._gradient_checkpointing_func
        assert isinstance(function, functools.partial) and function.func is checkpoint
        assert function.keywords == {"use_reentrant": False}
    assert "context_fn" in parameters(checkpoint)


def test_torchs_packed_attention_has_the_arguments_that_we_pass():
    from torch.nn.attention.varlen import varlen_attn

    assert parameters(varlen_attn)[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
    assert {"scale", "window_size", "return_aux"} <= set(parameters(varlen_attn))
    default = inspect.signature(varlen_attn).parameters["window_size"].default
    assert default == (-1, -1)  # no window; (-1, 0) is causal


def test_the_operations_whose_log_sum_exp_is_caught_return_it_second():
    importlib.import_module("torch.nn.attention.varlen")  # registers its operation
    ours = sorted(name for name in kernel_lse.KERNELS if not name.startswith("flash_attn::"))
    assert len(ours) >= 5
    for name in ours:
        schemas = torch._C._jit_get_schemas_for_operator(name)
        assert schemas, f"{name} is no operation of torch {torch.__version__}"
        for schema in schemas:
            second = schema.returns[1]
            assert str(second.type) == "Tensor"
            if name.startswith("aten::"):
                assert re.fullmatch(r"(softmax_)?log_?sum_?exp", second.name), f"{name}: {second.name}"


def test_torch_tells_a_backward_pass_from_a_forward_pass():
    seen = []

    class Ask(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            seen.append(torch._C._current_graph_task_id())
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            seen.append(torch._C._current_graph_task_id())
            return grad

    Ask.apply(torch.ones(1, requires_grad=True)).sum().backward()
    assert seen[0] == -1 and seen[1] >= 0


def test_verls_queue_reads_and_writes_by_key():
    import transfer_queue

    assert {"keys", "partition_id", "select_fields"} <= set(parameters(transfer_queue.kv_batch_get))
    assert {"keys", "partition_id", "fields"} <= set(parameters(transfer_queue.kv_batch_put))
    assert {"keys", "tags", "partition_id"} <= set(parameters(transfer_queue.KVBatchMeta))


def test_verls_functions_take_what_we_hand_them():
    from verl.trainer.main_ppo import run_ppo
    from verl.trainer.ppo.core_algos import compute_gdpo_outcome_advantage
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY
    from verl.utils.ulysses import gather_outputs_and_unpad

    assert {"config", "task_runner_class"} <= set(parameters(run_ppo))
    given = "token_level_rewards response_mask index norm_adv_by_std_in_grpo config non_tensor_batch batch"
    assert set(given.split()) <= set(parameters(compute_gdpo_outcome_advantage))
    assert {"sync"} <= TRAINER_REGISTRY.keys()
    assert {"gather_dim", "grad_scaler"} <= set(parameters(gather_outputs_and_unpad))


KERNELS = "flash_attn_varlen_func _flash_attention_forward _flash_supports_window_size _flash_supports_deterministic "
KERNELS += "_flash_use_top_left_mask fa_peft_integration_check _custom_flash_attention_forward"


def test_verls_patched_attention_looks_its_kernels_up_in_its_module():
    """So that replacing an attribute of the module is enough."""
    from verl.models.transformers import qwen2_vl

    source = Path(qwen2_vl.__file__).read_text()  # not of the functions in place, which may be ours by now
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    names = [name for function in functions for name in ast.walk(function) if isinstance(name, ast.Name)]
    assert set(KERNELS.split()) <= {name.id for name in names if isinstance(name.ctx, ast.Load)}


@pytest.fixture(scope="module")
def of_vllm() -> dict[str, str]:
    """What each seam that vLLM has a part in is like, found in a process of its own: its import changes much."""
    worker = ROOT / "tests/contracts/vllm_seams.py"
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    variables.pop("TRITON_INTERPRET", None)
    done = subprocess.run([sys.executable, str(worker)], env=variables, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("seam", [seam.__name__ for seam in vllm_seams.SEAMS])
def test_seam_of_vllm(seam, of_vllm):
    assert of_vllm[seam] == "ok"
