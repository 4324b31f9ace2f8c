"""Rows with images of given sizes, and what verl's own agent-loop worker makes of them with a server of our own.

For `benchmarks.pixels` and the contract tests. Call `avar_rl.verl_plugin.config.environment.prepare` before.
"""

from __future__ import annotations

import asyncio
import inspect
import io
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
QUESTION = "How many circles?"
STEP = {"step": 0, "sample_index": 0, "rollout_n": 0, "validate": False}


def png(width: int, height: int, mode: str = "RGB") -> bytes:
    """Noise that is smooth over 8 pixels, so that resizing twice is not what resizing once is."""
    draw = np.random.default_rng(width * 10_000 + height)
    small = draw.integers(0, 256, (height // 8 + 1, width // 8 + 1, len(mode)), dtype=np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)
    image.save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def write_rows_of(folder: Path, images: Sequence[bytes]) -> None:
    """rl.parquet and chat.parquet in `folder`: one row for each image."""
    from data_tools.formats.rows import chat_row, rl_row, write_rows

    rl = [
        rl_row(id=str(i), source="odd", question=QUESTION, gold="1", images=(data,), index=i, split="train")
        for i, data in enumerate(images)
    ]
    write_rows(rl, folder / "rl.parquet")
    response = "<think>one</think><answer>1</answer>"
    chat = [chat_row(id=str(i), question=QUESTION, response=response, images=(data,)) for i, data in enumerate(images)]
    write_rows(chat, folder / "chat.parquet")


def configuration(stage: str, base: Path, data: Path, *overrides: str) -> Any:
    """verl's configuration of the miniature recipe's stage with another model and data."""
    from avar_rl.verl_plugin.config import recipe

    place = "model.path" if stage == "sft" else "actor_rollout_ref.model.path"
    given = [f"{place}={base}", f"data.train_files={data}", *overrides]
    return recipe.load(str(ROOT / f"recipes/config/tiny_{stage}"), given, stage=stage)


class AnsweringServer:
    """In the place of vLLM's: answers three tokens and keeps what it was asked."""

    def __init__(self):
        self.asked: list[dict[str, Any]] = []

    async def generate(self, **request: Any):
        from verl.workers.rollout.replica import TokenOutput

        self.asked.append(request)
        return TokenOutput(token_ids=[45, 46, 47], log_probs=[-1.0] * 3)


class RewardWorker:
    """In the place of a reward worker, which lives in a process of its own: every response gets 1."""

    class compute_score:  # as Ray names a remote method
        @staticmethod
        async def remote(data: Any) -> dict[str, Any]:
            return {"reward_score": 1.0, "reward_extra_info": {}}


@dataclass(frozen=True)
class Rolled:
    """What the server was asked, and verl's outputs: of every row, of every response to it."""

    asked: list[dict[str, Any]]
    outputs: list[list[Any]]


class AgentLoopRun:
    """verl's agent-loop worker, with the rows of a file as they reach it."""

    def __init__(self, base: Path, data: Path, *overrides: str):
        from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
        from verl.utils.dataset.rl_dataset import RLHFDataset

        config = configuration("grpo", base, data, "data.max_prompt_length=2000", *overrides)
        self.server: Any = AnsweringServer()
        rewards: list[Any] = [RewardWorker()]
        self.worker = AgentLoopWorker(config, self.server, reward_loop_worker_handles=rewards)
        rows = RLHFDataset([str(data)], self.worker.tokenizer, config.data, self.worker.processor)
        self.rows = [pickle.loads(pickle.dumps(rows[index])) for index in range(len(rows))]

    def run(self, responses: int = 1) -> Rolled:
        outputs: list[list[Any]] = []

        async def every() -> None:  # without a result, which asyncio.run would write out for an error that it drops
            outputs.extend([await asyncio.gather(*(self._respond(row) for _ in range(responses))) for row in self.rows])

        self.server.asked.clear()
        asyncio.run(every())
        return Rolled(self.server.asked, outputs)

    async def _respond(self, row: dict[str, Any]) -> Any:
        return await self.worker._run_agent_loop({}, STEP, agent_name="single_turn_agent", trace=False, **row)


@contextmanager
def as_verl_ships_it() -> Iterator[None]:
    """verl's agent loop without what this project puts around it."""
    from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopWorker
    from verl.utils.dataset.rl_dataset import RLHFDataset

    seams = [(RLHFDataset, "_process_multi_modal_info"), (AgentLoopBase, "process_multi_modal_info")]
    seams += [(AgentLoopWorker, "__init__")]
    ours = [(owner, name, inspect.getattr_static(owner, name)) for owner, name in seams]
    for owner, name, wrapper in ours:
        setattr(owner, name, wrapper.__wrapped__)
    try:
        yield
    finally:
        for owner, name, wrapper in ours:
            setattr(owner, name, wrapper)
