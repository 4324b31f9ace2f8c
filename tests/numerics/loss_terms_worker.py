"""Run by torchrun from test_loss_terms.py: gradients of verl's policy loss with terms, through verl's own FSDP2 engine.

usage: loss_terms_worker.py RECIPE OUT MODE LOSSES OVERRIDE…   (MODE: loss_agg_mode; LOSSES: `avar.losses` as JSON)

Each of the 8 rows of chat data, of which data-parallel rank r takes the r-th part, stands for a rollout.
"""

import functools
import json
import sys

from avar_rl.verl_plugin.config import environment

environment.prepare("cpu")

import torch  # noqa: E402
from made_up_rollouts import BOX, ROLLOUT, ROWS  # noqa: E402
from told_batch import told  # noqa: E402
from verl.utils import tensordict_utils as tu  # noqa: E402
from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group  # noqa: E402
from verl.utils.metric import Metric  # noqa: E402
from verl.workers.config import ActorConfig  # noqa: E402
from verl.workers.utils.losses import ppo_loss  # noqa: E402

from avar_rl.verl_plugin.config import recipe, settings  # noqa: E402
from avar_rl.verl_plugin.forward.blind import images_per_row  # noqa: E402
from avar_rl.verl_plugin.forward.request import REQUEST, update_request  # noqa: E402
from avar_rl.verl_plugin.sft.trainer import GuidedSFTTrainer  # noqa: E402


def as_rollouts(batch: dict, rows: range) -> dict:
    """Columns of chat data as those of rollouts: the response is what follows the assistant's header."""
    ids, masks = (list(batch[name].unbind()) for name in ("input_ids", "loss_mask"))
    images = images_per_row(batch["multi_modal_inputs"])
    starts = [int(mask_T.nonzero()[0]) for mask_T in masks]
    responses = [mask_T[start:] for mask_T, start in zip(masks, starts, strict=True)]
    times = [torch.arange(len(mask_T)) for mask_T in responses]
    columns = {
        "prompts": [ids_T[:start] for ids_T, start in zip(ids, starts, strict=True)],
        "responses": [ids_T[start:] for ids_T, start in zip(ids, starts, strict=True)],
        "response_mask": responses,
        "loss_mask": responses,
        "old_log_probs": [ROLLOUT["old_log_prob"](i, t) for i, t in zip(rows, times, strict=True)],
        "advantages": [torch.full((len(t),), ROLLOUT["advantage"](i)) for i, t in zip(rows, times, strict=True)],
        "right": [torch.tensor([float(ROLLOUT["right"](i))]) for i in rows],
        "evidence": [torch.tensor([0.0, *BOX] if image else [-1.0] + [0.0] * 4) for image in images],
    }
    nested = {name: torch.nested.as_nested_tensor(column, layout=torch.jagged) for name, column in columns.items()}
    return {**batch, **nested}


def main(recipe_path: str, out: str, mode: str, losses: str, overrides: list[str]) -> None:
    config = recipe.load(recipe_path, overrides, stage="sft")
    initialize_global_process_group()
    trainer = GuidedSFTTrainer(config, settings.parse(settings.SFTSettings, config).guidance)
    engine = trainer.engine
    per_rank, rank = ROWS // engine.get_data_parallel_size(), engine.get_data_parallel_rank()
    rows = range(rank * per_rank, (rank + 1) * per_rank)
    batch = as_rollouts(trainer.collate_fn([trainer.train_dataset[i] for i in rows]), rows)
    ours = settings.GRPOSettings(losses=settings.parse_losses(json.loads(losses)), blind=settings.BlindSettings())
    actor = ActorConfig(strategy="fsdp2", rollout_n=2, ppo_micro_batch_size_per_gpu=2, loss_agg_mode=mode)
    data = tu.get_tensordict(
        tensor_dict=batch,
        non_tensor_dict=told(trainer, config)
        | {
            "calculate_entropy": "entropy" in ours.loss_set().needs,
            REQUEST: update_request(ours),
        },
    )
    with engine.train_mode():
        engine.optimizer_zero_grad()
        output = engine.forward_backward_batch(data, functools.partial(ppo_loss, config=actor))
        parameters = dict(engine.module.named_parameters())
        gradients = {name: p.grad.full_tensor() for name, p in parameters.items() if p.grad is not None}
    loss = torch.tensor(sum(output["loss"]))
    torch.distributed.all_reduce(loss, op=torch.distributed.ReduceOp.AVG)
    terms = {name: value for name, value in output["metrics"].items() if name.startswith("actor/loss_")}
    gathered = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, terms)
    terms = {name: float(Metric.aggregate_dp([of[name] for of in gathered])) for name in terms}
    if trainer.rank == 0:
        torch.save({"gradients": gradients, "loss": float(loss), "terms": terms}, out)
    destroy_global_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:5], sys.argv[5:])
