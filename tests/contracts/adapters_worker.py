"""Run by test_adapters.py: verl's FSDP2 engine with adapters over frozen bfloat16 weights, in one process.

usage: adapters_worker.py TINY_WORLD OUT OVERRIDE…
"""

import os
import sys
import tempfile
from typing import Any

from avar_rl.verl_plugin.config import environment

environment.prepare("cpu")

import pandas as pd  # noqa: E402
import torch  # noqa: E402
from verl.utils import tensordict_utils as tu  # noqa: E402
from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group  # noqa: E402

from avar_rl.verl_plugin.config import recipe, settings  # noqa: E402
from avar_rl.verl_plugin.forward.request import REQUEST, ForwardRequest  # noqa: E402
from avar_rl.verl_plugin.sft.trainer import GuidedSFTTrainer  # noqa: E402


def request(trainer, batch: dict, **more):
    shared = {"use_remove_padding": False, "use_dynamic_bsz": False, "micro_batch_size_per_gpu": 2, "temperature": 1.0}
    shared |= {"pad_mode": trainer.config.data.pad_mode, "global_batch_size": 2}
    shared |= {"pad_token_id": trainer.model_config.tokenizer.pad_token_id}
    return tu.get_tensordict(tensor_dict=dict(batch), non_tensor_dict=shared | more)


def masses(trainer, batch: dict) -> list[torch.Tensor]:
    more = {"return_model_output": True, "compute_loss": False, "calculate_entropy": False}
    data = request(trainer, batch, **more, **{REQUEST: ForwardRequest(settings.AttentionSettings())})
    with trainer.engine.eval_mode():
        output = trainer.engine.forward_backward_batch(data, None, forward_only=True)["model_output"]
    return list(output["image_mass"].unbind())


def train_one_step(trainer, batch: dict) -> dict:
    """What the backward pass reached, and what it was asked to keep of the vision tower."""
    engine, needs_grad = trainer.engine, []
    tower = engine.module.get_base_model().model.visual
    tower.patch_embed.register_forward_hook(lambda module, given, output: needs_grad.append(output.requires_grad))
    with engine.train_mode():
        engine.optimizer_zero_grad()
        engine.forward_backward_batch(request(trainer, batch), trainer.training_client.loss_fn)
        got = {name: p.grad.dtype for name, p in engine.module.named_parameters() if p.grad is not None}
        engine.optimizer_step()
    return {"gradients": got, "tower_needs_grad": needs_grad}


def adapters(engine: Any) -> dict[str, torch.Tensor]:
    parameters = engine.module.named_parameters()
    return {name: p.full_tensor().detach().clone() for name, p in parameters if "lora_" in name}


def main(world: str, out: str, overrides: list[str]) -> None:
    data = f"{world}/data/sft_train.parquet"
    overrides = [f"data.train_files={data}", f"model.path={world}/base", "data.num_workers=0", *overrides]
    overrides += ["data.train_batch_size=2", "data.micro_batch_size_per_gpu=2", "trainer.resume_mode=disable"]
    overrides += ["trainer.total_training_steps=2", "optim.lr_warmup_steps_ratio=0"]
    overrides += ["model.use_remove_padding=false"]  # as its batches are told below
    config = recipe.load("recipes/config/tiny_sft", overrides, stage="sft")
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "unused", "MASTER_PORT": "0"}
    os.environ["DIST_INIT_METHOD"] = f"file://{tempfile.mkdtemp()}/rendezvous?rank=0&world_size=1"
    initialize_global_process_group()
    trainer = GuidedSFTTrainer(config, settings.parse(settings.SFTSettings, config).guidance)
    engine: Any = trainer.engine
    checkpoint = f"{config.trainer.default_local_dir}/global_step_1"
    rows = [int(row) for row in pd.read_parquet(data)["images"].map(len).gt(0).to_numpy().nonzero()[0][:2]]
    batch = trainer.collate_fn([trainer.train_dataset[row] for row in rows])
    found = {"types": {name: p.dtype for name, p in engine.module.named_parameters()}}
    found["masses"] = {"untrained": masses(trainer, batch)}
    found |= train_one_step(trainer, batch)
    found["masses"]["trained"] = masses(trainer, batch)
    with engine.disable_adapter():
        found["masses"]["disabled"] = masses(trainer, batch)
    found["trained"] = adapters(engine)
    engine.save_checkpoint(checkpoint, global_step=1)
    train_one_step(trainer, batch)
    found["trained further"] = adapters(engine)
    engine.load_checkpoint(checkpoint)
    found["loaded"] = adapters(engine)
    torch.save(found, out)
    destroy_global_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
