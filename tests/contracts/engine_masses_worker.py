"""Run by test_engine_masses.py: the old-log-prob pass of verl's FSDP2 engine with requests for masses and for masked
images, in one process, or in two that share each sequence (Ulysses) where torchrun starts them.

usage: engine_masses_worker.py DATA MODELS OUT OVERRIDE…

DATA is a parquet file of chat rows. MODELS has a folder for each model family. OUT gets {layout: {family: {case:
rows}}}.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from avar_rl.verl_plugin.config import environment

environment.prepare("cpu")

import pandas as pd  # noqa: E402
import torch  # noqa: E402
from verl.utils import tensordict_utils as tu  # noqa: E402
from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group  # noqa: E402

from avar_rl.attention.families import FAMILIES  # noqa: E402
from avar_rl.blind import BlindSettings  # noqa: E402
from avar_rl.verl_plugin.config import recipe, settings  # noqa: E402
from avar_rl.verl_plugin.forward.request import REQUEST, ForwardRequest  # noqa: E402
from avar_rl.verl_plugin.sft.trainer import GuidedSFTTrainer  # noqa: E402

BLIND = {
    "blind": BlindSettings(),
    "blind, another order": BlindSettings(),
    "blind, tokens by their mean": BlindSettings(mask="tokens", share=0.5, value="mean", seed=7),
    "blind, no image": BlindSettings(),
}
CASES = {
    "all layers": ForwardRequest(settings.AttentionSettings()),
    "layer 1": ForwardRequest(settings.AttentionSettings(layers=(1,))),
    "no request": None,
    "rollout": None,
    "filler": ForwardRequest(settings.AttentionSettings()),
    "region": ForwardRequest(settings.AttentionSettings(), region=True),
} | {case: ForwardRequest(blind=blind) for case, blind in BLIND.items()}
# The left half of the second row's image; the first row has no image, the third no box.
BOXES = [(-1.0, 0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.5, 1.0), (-1.0, 0.0, 0.0, 0.0, 0.0)]
# In this order: verl replaces methods of whole classes, for packed batches and then for its fused kernels.
LAYOUTS = {"padded": ["model.use_remove_padding=false"], "packed": ["model.use_remove_padding=true"]}
LAYOUTS["packed, fused kernels"] = [
    *LAYOUTS["packed"],
    "model.use_fused_kernels=true",
    "model.fused_kernel_options.impl_backend=torch",
]
ULYSSES = {"ulysses": [*LAYOUTS["packed"], "engine.ulysses_sequence_parallel_size=2", "trainer.n_gpus_per_node=2"]}


def infer(trainer, batch: dict, wanted: ForwardRequest | None) -> dict[str, list[torch.Tensor]]:
    request = {
        "use_remove_padding": trainer.config.model.use_remove_padding,
        "use_fused_kernels": trainer.config.model.use_fused_kernels,
        "use_dynamic_bsz": False,
        "micro_batch_size_per_gpu": 3,
        "temperature": 1.0,
        "pad_mode": trainer.config.data.pad_mode,
        "pad_token_id": trainer.model_config.tokenizer.pad_token_id,
        "return_model_output": True,
        "compute_loss": False,
        "calculate_entropy": False,
    }
    if wanted is not None:
        request[REQUEST] = wanted
    data = tu.get_tensordict(tensor_dict=dict(batch), non_tensor_dict=request)
    with trainer.engine.eval_mode():
        output = trainer.engine.forward_backward_batch(data, None, forward_only=True)["model_output"]
    return {name: list(value.unbind()) for name, value in output.items()}


def filler(items: list[dict], token: int) -> list[dict]:
    """As verl fills a batch up: one token again and again, no response, no image."""
    short = {name: value[..., :4] for name, value in items[0].items() if isinstance(value, torch.Tensor)}
    short |= {"input_ids": torch.full((4,), token), "loss_mask": torch.zeros(4, dtype=torch.long)}
    return [items[0] | short | {"multi_modal_inputs": {}}] * 3


def rows_of_case(case: str, items: list[dict], eos: int) -> list[dict]:
    """The rows of a micro-batch; for a blind pass, and for what it is compared with, with GRPO's `response_mask`, from
    the response's first token on."""
    if case == "filler":
        return filler(items, eos)
    if case == "region":
        return [item | {"evidence": torch.tensor(box)} for item, box in zip(items, BOXES, strict=True)]
    if case not in BLIND and case != "rollout":
        return items
    if case == "blind, no image":
        items = [items[0], *filler(items, eos)[:2]]
    if case == "blind, another order":
        items = items[::-1]
    firsts = [int(item["loss_mask"].argmax()) if item["loss_mask"].any() else 3 for item in items]
    return [item | {"response_mask": item["loss_mask"][first:]} for item, first in zip(items, firsts, strict=True)]


def record(data: str, model: Path, overrides: list[str]) -> dict[str, list[dict]]:
    """What the engine of one model gives for three rows, the first of which has no image: {case: one dict a row}."""
    overrides = [f"data.train_files={data}", f"model.path={model}", "data.num_workers=0", *overrides]
    overrides += ["data.train_batch_size=3", "data.micro_batch_size_per_gpu=3", "trainer.resume_mode=disable"]
    config = recipe.load("recipes/config/tiny_sft", overrides, stage="sft")
    trainer = GuidedSFTTrainer(config, settings.parse(settings.SFTSettings, config).guidance)
    has_image: Any = pd.read_parquet(data)["images"].map(len) > 0
    rows = [*has_image[~has_image].index[:1], *has_image[has_image].index[:2]]
    items = [trainer.train_dataset[int(row)] for row in rows]
    found = {}
    for case, wanted in CASES.items():
        used = rows_of_case(case, items, trainer.model_config.tokenizer.eos_token_id)
        outputs = infer(trainer, trainer.collate_fn(used), wanted)
        found[case] = [
            {name: values[i] for name, values in outputs.items()}
            | {"input_ids": item["input_ids"], "response": item["loss_mask"].bool()}
            | {"multi_modal_inputs": dict(item["multi_modal_inputs"])}
            for i, item in enumerate(used)
        ]
    return found


def main(data: str, models: str, out: str, overrides: list[str]) -> None:
    layouts = LAYOUTS
    if "RANK" in os.environ:
        layouts = ULYSSES
    else:
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "unused", "MASTER_PORT": "0"}
        os.environ["DIST_INIT_METHOD"] = f"file://{tempfile.mkdtemp()}/rendezvous?rank=0&world_size=1"
    initialize_global_process_group()
    folders = [
        folder for folder in sorted(Path(models).iterdir()) if layouts is LAYOUTS or FAMILIES[folder.name].ulysses
    ]
    found = {
        layout: {model.name: record(data, model, [*changes, *overrides]) for model in folders}
        for layout, changes in layouts.items()
    }
    if os.environ["RANK"] == "0":
        torch.save(found, out)
    destroy_global_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
