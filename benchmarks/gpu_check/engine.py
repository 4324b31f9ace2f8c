"""verl's SFT trainer with our engine on one device, without its data set; what parts 3, 4 and 6 drive.

Import it before anything of verl: it puts stand-ins where Ray, wandb and datasets are not installed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import torch

from benchmarks.gpu_check import small_qwen, stand_ins
from benchmarks.gpu_check.parts import ROOT
from benchmarks.gpu_check.results import PartFindings, Setting

STAND_INS = stand_ins.install()


def prepare(setting: Setting) -> tuple[Any, small_qwen.Sizes]:
    """Sets what verl reads when it is imported, and makes the model, unless that is done: its tokenizer and sizes.

    Plain transformers' results are to be had after this and before `start`: verl then changes the model's classes.
    """
    from avar_rl.verl_plugin.config import environment

    environment.prepare("cpu" if setting.miniature else "gpu")
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "unused", "MASTER_PORT": "0"}
    rendezvous = setting.work / f"rendezvous.{os.getpid()}"
    os.environ["DIST_INIT_METHOD"] = f"file://{rendezvous}?rank=0&world_size=1"
    from transformers import AutoTokenizer

    sizes = small_qwen.MINIATURE if setting.miniature else small_qwen.WIDE
    small_qwen.make(setting.work / "model", sizes, setting.device)
    return AutoTokenizer.from_pretrained(setting.work / "model"), sizes


def start(findings: PartFindings, setting: Setting, overrides: list[str]):
    """verl's trainer of the cold start, on the recipe's settings and `overrides`, with its engine built.

    Packed batches, activation checkpointing, bfloat16 under autocast, one rank of FSDP2. `prepare` goes before it.
    """
    from torchdata.stateful_dataloader import StatefulDataLoader
    from verl.utils.distributed import initialize_global_process_group

    from avar_rl.verl_plugin.config import settings
    from avar_rl.verl_plugin.sft.trainer import GuidedSFTTrainer

    class Trainer(GuidedSFTTrainer):
        """Without files of data: batches are handed to it."""

        def _build_dataset(self) -> None:
            self.train_dataset, self.val_dataset = [], None

        def _build_dataloader(self) -> None:
            nothing: Any = []
            self.train_dataloader, self.val_dataloader = StatefulDataLoader(nothing), None

    begun = perf_counter()
    config = compose(setting, overrides)
    if not torch.distributed.is_initialized():
        initialize_global_process_group()
    trainer = Trainer(config, settings.parse(settings.SFTSettings, config).guidance)
    findings.note("stand-ins for", list(STAND_INS))
    findings.note("attention", config.model.override_config.attn_implementation)
    findings.note("seconds to build", round(perf_counter() - begun, 1))
    return trainer


def compose(setting: Setting, overrides: list[str]) -> Any:
    """The cold start of the 7B recipe on one device; a miniature differs in the profile alone."""
    from avar_rl.verl_plugin.config import recipe

    profile = ["profile=cpu_sft"] if setting.miniature else []
    overrides = [*profile, *_overrides(setting.work), *overrides]
    return recipe.load(str(ROOT / "recipes" / "config" / "qwen7b_sft"), overrides, stage="sft")


def _overrides(work: Path) -> list[str]:
    return [
        f"model.path={work}/model",
        f"trainer.default_local_dir={work}/checkpoints",
        "data.train_files=none",
        "trainer.n_gpus_per_node=1",
        "trainer.total_training_steps=100",
        "trainer.resume_mode=disable",
        "model.use_remove_padding=true",
        "model.enable_gradient_checkpointing=true",
        "engine.use_torch_compile=false",  # of the entropy; minutes of compiling
        "++engine.mixed_precision={param_dtype: bf16, reduce_dtype: fp32, buffer_dtype: fp32}",
        "data.use_dynamic_bsz=true",
    ]


def batch(trainer, rows: list[dict[str, Any]], masses: bool = False):
    """`rows` as the trainer's own loop hands them to verl: one packed micro-batch; with a request for masses or not."""
    from tensordict.tensorclass import NonTensorData
    from verl.utils import tensordict_utils as tu
    from verl.utils.dataset.dataset_utils import SFTTensorCollator

    from avar_rl.verl_plugin.config.settings import AttentionSettings
    from avar_rl.verl_plugin.forward.request import REQUEST, ForwardRequest

    config = trainer.config
    lengths = [len(row["input_ids"]) for row in rows]
    about: dict[str, Any] = {
        "use_remove_padding": config.model.use_remove_padding,
        "use_fused_kernels": config.model.use_fused_kernels,
        "use_dynamic_bsz": True,
        "max_token_len_per_gpu": sum(lengths),
        "micro_batch_size_per_gpu": len(rows),
        "temperature": 1.0,
        "global_batch_size": len(rows),
        "pad_mode": config.data.pad_mode,
        "pad_token_id": trainer.model_config.tokenizer.pad_token_id,
        "compute_loss": False,  # where nothing is trained
    }
    if masses:
        about[REQUEST] = ForwardRequest(AttentionSettings())
    columns = SFTTensorCollator(config.data.pad_mode)(rows)
    data = tu.get_tensordict(tensor_dict=columns, non_tensor_dict=about)
    tu.assign_non_tensor(data, update_lr_scheduler=False, global_token_num=NonTensorData(lengths))
    return data


def compare(
    findings: PartFindings, setting: Setting, name: str, steps: dict[str, Callable[[], Any]]
) -> tuple[float, float]:
    """Times two ways of doing a step, plain first, turn by turn after one warm-up; notes all figures.

    Returns: the median of the ratios of times, and the ratio of the peaks of memory (0 on a CPU).
    """
    plain, other = steps
    repeats = 1 if setting.miniature else 7
    seconds: dict[str, list[float]] = {way: [] for way in steps}
    peak = dict.fromkeys(steps, 0)
    for repeat in range(repeats + 1):
        for way in steps if repeat % 2 else reversed(steps):
            time, memory = timed(steps[way], setting)
            if repeat:
                seconds[way].append(time)
                peak[way] = max(peak[way], memory)
    ratios = [b / a for a, b in zip(seconds[plain], seconds[other], strict=True)]
    low, middle, high = quantiles(ratios, n=4, method="inclusive") if repeats > 1 else ratios * 3
    fact: dict[str, Any] = {f"seconds, {way}": round(median(times), 5) for way, times in seconds.items()}
    fact |= {f"peak bytes, {way}": memory for way, memory in peak.items()}
    findings.note(name, fact | {"ratio": round(middle, 4), "quartiles": [round(low, 4), round(high, 4)]})
    return middle, peak[other] / peak[plain] if peak[plain] else 0.0


def timed(run: Callable[[], Any], setting: Setting) -> tuple[float, int]:
    """Seconds, and the peak of allocated memory in bytes (0 on a CPU)."""
    if setting.miniature:
        begun = perf_counter()
        run()
        return perf_counter() - begun, 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    begun = perf_counter()
    run()
    torch.cuda.synchronize()
    return perf_counter() - begun, torch.cuda.max_memory_allocated()
