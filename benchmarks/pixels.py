"""What images cost a rollout, as verl ships it and with this project's cache: `python -m benchmarks.pixels`.

verl's own agent-loop worker answers prompts of one image each, with a server in the place of vLLM's and a reward worker
that does nothing, so what is measured is the worker's own work. Of each prompt all responses, in one process:
  calls     runs of the image processor
  seconds   processor time: of the image processor, and of the worker in all (median over repeats, variants alternate)
  bytes     what a response puts into the queue for the actor's images, as the queue encodes it
The last columns are that for a step of 256 prompts with 8 responses each.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

from avar_rl.verl_plugin.config import environment

environment.prepare("cpu")  # before anything imports verl

from avar_rl.base_model import make_base  # noqa: E402
from benchmarks.rolled_images import QUESTION, AgentLoopRun, as_verl_ships_it, png, write_rows_of  # noqa: E402

STEP_PROMPTS, STEP_RESPONSES = 256, 2048
VARIANTS = ("verl", "cached, fp32", "cached, bf16")
IN_BF16 = [f"actor_rollout_ref.{role}.fsdp_config.mixed_precision.param_dtype=bf16" for role in ("actor", "ref")]


@dataclass
class Cost:
    """Of one rollout: runs and processor seconds of the image processor, the worker's seconds, bytes of a response."""

    calls: int = 0
    image_seconds: float = 0.0
    seconds: float = 0.0
    response_bytes: int = 0


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, action="append", help="of a square image (default: 84 and 1000)")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--responses", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args(argv)

    import torch

    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {args.prompts} prompts x {args.responses} responses, {args.repeats} repeats")
    no_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        base = miniature(Path(folder))
        for side in args.side or (84, 1000):
            data = Path(folder) / str(side)
            data.mkdir()
            # all prompts have other images
            write_rows_of(data, [png(side, side - number) for number in range(args.prompts)])
            report(side, base, data / "rl.parquet", args)


def no_progress_bars() -> None:
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.logging.disable_progress_bar()


def miniature(folder: Path) -> Path:
    """The miniature model, with the limits of pixels of the full-size recipes."""
    from data_tools.miniature.model import save

    save(folder / "model", [QUESTION] * 10, seed=0)
    make_base(str(folder / "model"), folder / "base", least=3136, most=1003520)
    return folder / "base"


def report(side: int, base: Path, data: Path, args: argparse.Namespace) -> None:
    costs: dict[str, list[Cost]] = {variant: [] for variant in VARIANTS}
    for _ in range(args.repeats):
        for variant, measured in costs.items():
            measured.append(measure(variant, base, data, args.responses))
    responses = args.prompts * args.responses
    print(f"\n{side} x {side} pixels")
    heads = f"{'calls':>7}{'image s':>9}{'worker s':>10}{'ratio':>8}{'MB/response':>13}{'step s':>9}{'step GB':>9}"
    print(f"{'':<14}{heads}")
    for variant, measured in costs.items():
        seconds = median(cost.seconds for cost in measured)
        ratio = median(one.seconds / other.seconds for one, other in zip(measured, costs["verl"], strict=True))
        image_seconds = median(cost.image_seconds for cost in measured)
        size = measured[0].response_bytes
        print(
            f"{variant:<14}{measured[0].calls:>7}{image_seconds:>9.3f}{seconds:>10.3f}"
            f"{ratio:>8.3f}{size / 1e6:>13.3f}{seconds / responses * STEP_RESPONSES:>9.1f}"
            f"{size * STEP_RESPONSES / 1e9:>9.2f}",
            flush=True,
        )


def measure(variant: str, base: Path, data: Path, responses: int) -> Cost:
    """A rollout with nothing in the cache yet."""
    cost = Cost()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(None))
        if variant == "verl":
            stack.enter_context(as_verl_ships_it())
        rollout = AgentLoopRun(base, data, *(IN_BF16 if variant.endswith("bf16") else []))
        stack.enter_context(counted(cost))
        started = process_time()
        rolled = rollout.run(responses)
        cost.seconds = process_time() - started
    cost.response_bytes = queue_bytes(rolled.outputs[0][0].multi_modal_inputs)
    return cost


@contextlib.contextmanager
def counted(cost: Cost) -> Iterator[None]:
    """Counts every run of the image processor. Threads share the processor's time, so theirs are the thread's own."""
    from time import thread_time

    from transformers import Qwen2VLImageProcessor

    stock = Qwen2VLImageProcessor.preprocess

    def preprocess(self: Any, *args: Any, **kwargs: Any) -> Any:
        started = thread_time()
        try:
            return stock(self, *args, **kwargs)
        finally:
            cost.calls += 1
            cost.image_seconds += thread_time() - started

    Qwen2VLImageProcessor.preprocess = preprocess
    try:
        yield
    finally:
        Qwen2VLImageProcessor.preprocess = stock


def queue_bytes(inputs: dict[str, Any]) -> int:
    from transfer_queue.utils.serial_utils import encode

    frames: list[Any] = encode(inputs)
    return sum(len(memoryview(frame).cast("B")) for frame in frames)


if __name__ == "__main__":
    main()
