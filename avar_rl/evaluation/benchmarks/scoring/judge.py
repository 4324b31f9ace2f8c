"""The column `judge`: a language model extracts the answer or gives the verdict, in the steps of the official code.

MathVista: the model extracts, the official rules compare. MathVerse: it extracts, and in a second call says 1 or 0.
HallusionBench: it says correct, incorrect or unclear, which is not right. The other benchmarks' official rules ask no
model: they have no such column. The prompts are text files (`judge_prompts/`, or a folder of the user's with the same
names, such as the official prompts word for word); their hashes stand in the results. A reply that cannot be read is
counted as failed; no chance takes its place.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from avar_rl.evaluation.benchmarks.scoring.both_columns import turn_of
from avar_rl.evaluation.benchmarks.scoring.judge_replies import JudgeAddress, JudgeReplies, NotJudgedError
from avar_rl.evaluation.benchmarks.scoring.official import mathvista
from avar_rl.evaluation.benchmarks.scoring.official.reading import final_text
from data_tools.formats.sample import DataSample

PROMPTS = Path(__file__).parent / "judge_prompts"
REPLIES = "judge.jsonl"  # the file of replies, in OUT
SLOTS = {
    "mathvista": ("question", "response"),
    "mathverse_extract": ("response",),
    "mathverse_verdict": ("question", "gold", "answer"),
    "hallusionbench": ("question", "gold", "response"),
}
_SLOT = re.compile(r"\{(\w+)\}")
_LABEL = re.compile(r"\s*(?:extracted answer|judge?ment|output)\s*:\s*", re.IGNORECASE)
Ask = Callable[[str], Awaitable[str]]  # a prompt → the reply; NotJudgedError


@dataclass(frozen=True)
class JudgePrompts:
    """The judge's prompts by name, with `{question}` and the like where a question's parts go."""

    texts: Mapping[str, str]

    @classmethod
    def of(cls, folder: Path = PROMPTS) -> JudgePrompts:
        """Those of a folder. ValueError: a file is missing, or lacks one of its places."""
        texts = {}
        for name, slots in SLOTS.items():
            path = folder / f"{name}.txt"
            if not path.is_file():
                raise ValueError(f"{path}: no such prompt; the judge needs {', '.join(f'{n}.txt' for n in SLOTS)}")
            texts[name] = path.read_text(encoding="utf-8").strip()
            if missing := [slot for slot in slots if f"{{{slot}}}" not in texts[name]]:
                raise ValueError(f"{path} lacks {', '.join(f'{{{slot}}}' for slot in missing)}")
        return cls(texts)

    def hashes(self, benchmark: str) -> dict[str, str]:
        """The SHA-256 of each prompt that a benchmark's judge is given, by name."""
        names = [name for name in self.texts if benchmark.startswith(name.partition("_")[0])]
        return {name: hashlib.sha256(self.texts[name].encode()).hexdigest() for name in names}

    def filled(self, name: str, **parts: str) -> str:
        """A prompt with its places filled in; other braces stay as they are."""
        return _SLOT.sub(lambda slot: parts.get(slot[1], slot[0]), self.texts[name])


@dataclass(frozen=True)
class Judged:
    """What the judge says of a response. `failed`: nothing that can be used, then `right` is None."""

    right: bool | None
    answer: str | None
    failed: bool = False


async def _mathvista(sample: DataSample, text: str, ask: Ask, prompts: JudgePrompts) -> Judged:
    extraction = mathvista.stated_outright(sample, text)
    if extraction is None:
        question = str(sample.extra.get("query") or sample.question)
        extraction = _extraction(await ask(prompts.filled("mathvista", question=question, response=text)))
    reading = mathvista.compare(sample, extraction)
    return Judged(reading.right, reading.answer)


async def _mathverse(sample: DataSample, text: str, ask: Ask, prompts: JudgePrompts) -> Judged:
    answer = _extraction(await ask(prompts.filled("mathverse_extract", response=text)))
    if answer is None:
        return Judged(False, None)
    question, gold = str(sample.extra.get("question_for_eval") or sample.question), str(sample.extra["answer"])
    said = await ask(prompts.filled("mathverse_verdict", question=question, gold=gold, answer=answer))
    verdict = _bare(said).rstrip(".")
    if verdict not in ("0", "1"):
        raise NotJudgedError(f"its verdict is neither 0 nor 1 but {verdict[:80]!r}")
    return Judged(verdict == "1", answer)


async def _hallusionbench(sample: DataSample, text: str, ask: Ask, prompts: JudgePrompts) -> Judged:
    gold = str(sample.extra.get("gt_answer_details") or sample.gold)
    said = _bare(await ask(prompts.filled("hallusionbench", question=sample.question, gold=gold, response=text)))
    word = next((word for word in ("incorrect", "correct") if word in said.lower()), "unclear")
    return Judged(word == "correct", word)


JUDGES = {
    "mathvista": _mathvista,
    "mathverse": _mathverse,
    "mathverse_vision_only": _mathverse,
    "hallusionbench": _hallusionbench,
}


def _bare(reply: str) -> str:
    """A reply without its thought and its label. NotJudgedError: nothing is left."""
    text = final_text(reply)
    text = _LABEL.sub("", text, count=1).strip() if text else ""
    if not text:
        raise NotJudgedError("its reply is empty")
    return text


def _extraction(reply: str) -> str | None:
    """The extracted answer in a reply; None where the judge found none."""
    text = _bare(reply)
    return None if text.lower().strip(".'\"") == "null" else text


async def _judged(
    benchmark: str, sample: DataSample, turn: str, ask: Ask, prompts: JudgePrompts, trouble: list[str]
) -> Judged:
    """The judge's word on a model's turn; why there is none is added to `trouble`."""
    text = final_text(turn)
    if not text:
        return Judged(False, None)  # an unclosed thought, or nothing: there is no answer to ask about
    try:
        return await JUDGES[benchmark](sample, text, ask, prompts)
    except NotJudgedError as error:
        trouble.append(str(error))
        return Judged(None, None, failed=True)


def judge_all(
    benchmark: str,
    samples: Mapping[str, DataSample],
    records: Sequence[Mapping[str, Any]],
    endpoint: JudgeAddress,
    prompts: JudgePrompts,
    out: Path,
) -> tuple[list[Judged], dict[str, Any]]:
    """The judge's word on every record, in order, and who it was: model, hashes of prompts, date, requests, and
    `trouble`, the last reason why it said nothing, if any.

    Replies are kept in OUT/judge.jsonl. ValueError: that file cannot be used.
    """
    trouble: list[str] = []

    async def run() -> tuple[list[Judged], JudgeReplies]:
        from tqdm.asyncio import tqdm

        async with JudgeReplies(endpoint, out / REPLIES) as replies:
            of_each = [
                _judged(benchmark, samples[record["id"]], turn_of(record), replies.reply, prompts, trouble)
                for record in records
            ]
            return await tqdm.gather(*of_each, desc=f"{benchmark}, judge", unit="response"), replies

    judged, replies = asyncio.run(run())
    return judged, {
        "model": endpoint.model,
        "prompts": prompts.hashes(benchmark),
        "date": datetime.now(UTC).date().isoformat(),
        "requests": replies.asked,
        "trouble": replies.down or (trouble[-1] if trouble else None),
    }
