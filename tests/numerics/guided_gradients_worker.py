"""Run by torchrun from test_guided_gradients.py: gradients of the guided loss through verl's own FSDP2 engine.

usage: guided_gradients_worker.py RECIPE OUT ROWS OVERRIDE…   (data-parallel rank r takes the r-th part of ROWS)
"""

import sys

from avar_rl.verl_plugin.config import environment

environment.prepare("cpu")

import torch  # noqa: E402
from told_batch import told  # noqa: E402
from verl.utils import tensordict_utils as tu  # noqa: E402
from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group  # noqa: E402

from avar_rl.verl_plugin.config import recipe, settings  # noqa: E402
from avar_rl.verl_plugin.sft.trainer import GuidedSFTTrainer  # noqa: E402


def main(recipe_path: str, out: str, total: int, overrides: list[str]) -> None:
    config = recipe.load(recipe_path, overrides, stage="sft")
    initialize_global_process_group()
    trainer = GuidedSFTTrainer(config, settings.parse(settings.SFTSettings, config).guidance)
    engine = trainer.engine
    per_rank, rank = total // engine.get_data_parallel_size(), engine.get_data_parallel_rank()
    rows = range(rank * per_rank, (rank + 1) * per_rank)
    batch = trainer.collate_fn([trainer.train_dataset[i] for i in rows])
    data = tu.get_tensordict(tensor_dict=batch, non_tensor_dict=told(trainer, config))
    with engine.train_mode():
        engine.optimizer_zero_grad()
        output = engine.forward_backward_batch(data, trainer.training_client.loss_fn)
        parameters = dict(engine.module.named_parameters())
        gradients = {name: p.grad.full_tensor() for name, p in parameters.items() if p.grad is not None}
        lora_A = {name: p.full_tensor().detach() for name, p in parameters.items() if "lora_A" in name}
    loss = torch.tensor(sum(output["loss"]))
    torch.distributed.all_reduce(loss, op=torch.distributed.ReduceOp.AVG)
    if trainer.rank == 0:
        torch.save({"gradients": gradients, "lora_A": lora_A, "loss": float(loss)}, out)
    destroy_global_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:])
