"""Run by test_ulysses.py: masses and gradients of a packed batch under Ulysses sequence parallelism over gloo ranks.

usage: ulysses_worker.py RANK WORLD RENDEZVOUS OUT   (tests/numerics in PYTHONPATH)
"""

import sys

from avar_rl.verl_plugin import environment

environment.prepare("cpu")

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from tiny_qwen import make_model, pack, spans_of  # noqa: E402
from verl.models.transformers.monkey_patch import apply_monkey_patch  # noqa: E402
from verl.utils.ulysses import (  # noqa: E402
    gather_outputs_and_unpad,
    set_ulysses_sequence_parallel_group,
    ulysses_pad,
)

from avar_rl.attention import record_span_mass  # noqa: E402
from avar_rl.spans import query_rows  # noqa: E402
from avar_rl.verl_plugin.engine import _visible  # noqa: E402


def main(rank: int, world: int, rendezvous: str, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
    model = make_model("sdpa").train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    apply_monkey_patch(model, use_remove_padding=True, ulysses_sp_size=world)
    inputs, roles, cu_seqlens = pack(model)
    set_ulysses_sequence_parallel_group(dist.group.WORLD if world > 1 else None)
    pad = 0
    if world > 1:  # as verl's engine does
        ids, positions, pad = ulysses_pad(inputs["input_ids"], inputs["position_ids"], sp_size=world)
        inputs |= {"input_ids": ids, "position_ids": positions}
        roles = torch.nn.functional.pad(roles, (0, pad))
    cu_seqlens, valid = _visible(inputs["input_ids"], None, cu_seqlens, pad)
    rows = query_rows(roles, "response", cu_seqlens=cu_seqlens)
    with record_span_mass(model, spans_of(roles), rows=rows, cu_seqlens=cu_seqlens, valid=valid) as record:
        model(**inputs)
    masses = record.stack()
    if world > 1:
        masses = gather_outputs_and_unpad(masses.contiguous(), gather_dim=3, grad_scaler=True)
    masses.square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for gradient in gradients.values():  # as FSDP does
        dist.all_reduce(gradient)
        gradient.div_(world)
    if rank == 0:
        torch.save({"masses": masses.detach(), "gradients": gradients, "pad": pad}, out)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
