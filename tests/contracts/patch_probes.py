"""Run by test_patches.py, with and without our plug-in: what each patched place of verl, torch and vLLM does.

usage: patch_probes.py BASE_MODEL   Prints one JSON line: {probe: "ok" or the error}
"""

import importlib.metadata
import inspect
import json
import os
import sys
import tempfile

import torch
import verl.utils.distributed
import verl.utils.tensordict_utils as tensordict_utils
from tensordict import TensorDict

BASE = sys.argv[1]


def unbound_position_ids(samples: int, length: int) -> bool:
    """Do the position ids (4, T) of samples of one length come out of verl's repair as they went in?"""
    rows = [torch.arange(4 * length).view(4, length) + 1000 * i for i in range(samples)]
    nested = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    data = TensorDict({"position_ids": nested}, batch_size=samples)
    tensordict_utils.maybe_fix_3d_position_ids(data)
    return all(map(torch.equal, data["position_ids"].unbind(), rows))


def equal_length_position_ids():
    assert unbound_position_ids(3, 5)


def as_many_values_as_tokens():
    assert unbound_position_ids(8, 32), "positions of other samples"  # laid out along the 4: 8 * 4 = 32 values


def unequal_length_position_ids():
    rows = [torch.arange(4 * length).view(4, length) for length in (3, 5)]
    nested = tensordict_utils.nested_tensor_from_tensor_list(rows, ragged_idx=2)
    nested._ragged_idx = 1  # what pickling does to it
    data = TensorDict({"position_ids": nested}, batch_size=2)
    tensordict_utils.maybe_fix_3d_position_ids(data)
    assert all(map(torch.equal, data["position_ids"].unbind(), rows))


def text_only_batch():
    from transformers import AutoModelForImageTextToText
    from verl.models.transformers import qwen2_vl

    model = AutoModelForImageTextToText.from_pretrained(BASE).model
    ids, mask = torch.tensor([[10, 11, 12]]), torch.ones(1, 3)
    embeds, mask_out = qwen2_vl._get_input_embeds(model, ids, mask, None, None, None, None)
    assert torch.equal(embeds, model.get_input_embeddings()(ids)) and mask_out is mask
    embeds.sum().backward()  # every rank's vision tower must take part, with zero gradients
    assert all(float(p.grad.abs().sum()) == 0.0 for p in model.visual.parameters())


def head_of_fused_kernels():
    from transformers import AutoModelForImageTextToText
    from verl.models.transformers.monkey_patch import patch_forward_with_backends
    from verl.utils import fsdp_utils

    model = AutoModelForImageTextToText.from_pretrained(BASE)
    stock, forward = fsdp_utils._select_fsdp2_wrap_targets(model, []), type(model).forward
    patch_forward_with_backends(model, use_fused_kernels=True, fused_kernels_backend="torch")
    type(model).forward = forward
    fused = fsdp_utils._select_fsdp2_wrap_targets(model, [])
    assert model.lm_head in stock and model.lm_head not in fused, "lm_head is sharded by itself"
    assert fused == [module for module in stock if module is not model.lm_head] and fused


def log_probabilities(*shape: int) -> tuple[int, torch.Tensor, torch.Tensor]:
    """How many nodes of verl's log-probabilities of `shape` follow on the logits; the values; torch's own."""
    from verl.utils.torch_functional import logprobs_from_logits_v2

    torch.manual_seed(0)
    logits, labels = torch.randn(*shape, 7, requires_grad=True), torch.randint(7, shape)
    values = logprobs_from_logits_v2(logits, labels)
    reference = logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0]
    seen, left = set(), [values.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            left += [before for before, _ in node.next_functions]
    return sum("LogsumexpBackward" in node.name() for node in seen), values, reference


def packed_log_probabilities():
    nodes, values, reference = log_probabilities(2500)
    torch.testing.assert_close(values, reference)
    assert nodes == 3, f"{nodes} nodes"


def padded_log_probabilities():
    nodes, values, reference = log_probabilities(2, 2500)
    torch.testing.assert_close(values, reference)
    assert nodes == 2


def process_group_of_a_cpu():
    verl.utils.distributed.get_device_name = lambda: "cpu"
    verl.utils.distributed.get_nccl_backend = lambda: "gloo"
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    os.environ["DIST_INIT_METHOD"] = f"file://{tempfile.mkdtemp()}/rendezvous?rank=0&world_size=1"
    verl.utils.distributed.initialize_global_process_group()


def reference_engine_offload():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard
    from verl.workers.engine.fsdp import transformer_impl

    assert "CPUOffloadPolicy(pin_memory=True)" in inspect.getsource(transformer_impl), "verl no longer pins"
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{tempfile.mkdtemp()}/rendezvous", rank=0, world_size=1
        )
    layer = torch.nn.Linear(2, 2)
    fully_shard(layer, mesh=init_device_mesh("cpu", (1,)), offload_policy=CPUOffloadPolicy(pin_memory=True))
    layer(torch.ones(1, 2))


def vllm_version():
    assert importlib.metadata.version("vllm").endswith("+cpu")


def versions_of_other_packages():
    assert importlib.metadata.version("torch").split("+")[0] == torch.__version__.split("+")[0]
    try:
        importlib.metadata.version("no-such-distribution")
    except importlib.metadata.PackageNotFoundError:
        return
    raise AssertionError("a package that is not there got a version")


def plain_vllm_weights():
    from vllm.model_executor.layers import utils

    layer = torch.nn.Linear(64, 64, bias=False).requires_grad_(False)
    weight = layer.weight.clone()
    utils.dispatch_cpu_unquantized_gemm(layer, remove_weight=True)
    assert layer.weight.shape == (64, 64) and torch.equal(layer.weight, weight), f"weight is {layer.weight.shape}"
    x = torch.randn(3, 64)
    torch.testing.assert_close(layer.cpu_linear(x, layer.weight, None), x @ weight.T, rtol=1e-4, atol=1e-4)


def registered_engine():
    from verl.workers.engine import EngineRegistry

    return [EngineRegistry.get_engine_cls("language_model", backend).__name__ for backend in ("fsdp", "fsdp2")]


def registered_trainer():
    from verl.trainer.ppo.v1 import get_trainer_cls

    return get_trainer_cls("sync").__name__


PROBES = [
    equal_length_position_ids,
    as_many_values_as_tokens,
    unequal_length_position_ids,
    text_only_batch,
    head_of_fused_kernels,
    packed_log_probabilities,
    padded_log_probabilities,
    process_group_of_a_cpu,
    reference_engine_offload,
    vllm_version,
    versions_of_other_packages,
    plain_vllm_weights,
    registered_engine,
    registered_trainer,
]


def outcome(probe) -> object:
    try:
        return probe() or "ok"
    except Exception as error:  # noqa: BLE001 (whatever it is, the test compares it with what it expects)
        return f"{type(error).__name__}: {error}"


print(json.dumps({probe.__name__: outcome(probe) for probe in PROBES}))
