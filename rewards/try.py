"""Shows what rewards give on real rows, without any training.

python -m rewards.try --reward my_reward --data rl_train.parquet --responses responses.jsonl
python -m rewards.try --reward accuracy my_reward=/some/file.py --option my_reward.words=30 --data … --responses …

DATA is a parquet file of RL rows. RESPONSES is JSONL: `id` (the row's `extra_info.id`), `response`, and by need
`tokens` (the response's length) and `image_mass`, `system_mass` (lists, tokens x layers: attention
rewards). Gates are open.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.text import Text

    from rewards.combine import RewardSet
    from rewards.sample import AttentionSample, Masses

SHOWN = 60  # characters of a response's end


@dataclass(frozen=True)
class Tried:
    """One response with its rewards. error: what a failed reward said; "" without one."""

    row_id: str
    gold: str
    response: str
    raw: dict[str, float | None]
    error: str


def main(argv: list[str] | None = None) -> int:
    arguments = _parse(argv)
    try:
        tried = run(arguments.reward, arguments.option, arguments.data, arguments.responses, arguments.limit)
    except ValueError as error:
        print(f"rewards.try: {error}", file=sys.stderr)
        return 2
    _print(tried)
    return 1 if any(one.error for one in tried) else 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m rewards.try", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reward", nargs="+", required=True, metavar="NAME[=FILE]", help="scored in this order")
    parser.add_argument("--option", nargs="*", default=[], metavar="NAME.KEY=VALUE", help="options of the rewards")
    parser.add_argument("--data", required=True, metavar="FILE", help="parquet file of RL rows")
    parser.add_argument("--responses", required=True, metavar="FILE", help="JSONL: id, response, …")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N responses")
    return parser.parse_args(argv)


def run(rewards: list[str], options: list[str], data: str, responses: str, limit: int | None = None) -> list[Tried]:
    """Every response with its rewards. ValueError: a file, reward, option or row is at fault."""
    from data_tools.formats.rows import read_rows
    from rewards.combine import RewardSet, parse_terms

    chosen = RewardSet(parse_terms(_lines(rewards, options), "--reward"))
    rows = {str(row["extra_info"].get("id") or row["extra_info"]["index"]): row for row in read_rows(data)}
    lines = _read_jsonl(responses)[:limit]
    for number, line in enumerate(lines, 1):
        if str(line.get("id")) not in rows:
            raise ValueError(f"{responses}, line {number}: id {line.get('id')!r} is no row of {data}")
        if not isinstance(line.get("response"), str):
            raise ValueError(f"{responses}, line {number} has no text `response`")
        if chosen.needs_attention and not {"image_mass", "system_mass"} <= line.keys():
            raise ValueError(
                f"{responses}, line {number} has no image_mass and system_mass (tokens x layers), which "
                f"{', '.join(chosen.weights)} needs"
            )
    return asyncio.run(_score_all(chosen, [(rows[str(line["id"])], line) for line in lines]))


def _lines(rewards: list[str], options: list[str]) -> dict[str, dict[str, Any]]:
    """The `rewards:` block of a recipe that these arguments stand for."""
    import yaml

    lines: dict[str, dict[str, Any]] = {}
    for given in rewards:
        name, _, path = given.partition("=")
        lines[name] = {"weight": 1.0, "gate": None, "path": path or None}
    for given in options:
        place, _, value = given.partition("=")
        name, _, key = place.partition(".")
        if name not in lines or not key:
            raise ValueError(f"--option {given}: write NAME.KEY=VALUE with a NAME among {', '.join(lines)}")
        lines[name][key] = yaml.safe_load(value)
    return lines


def _read_jsonl(path: str) -> list[dict[str, Any]]:
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file")
    lines = []
    for number, text in enumerate(Path(path).read_text().splitlines(), 1):
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
    if not lines:
        raise ValueError(f"{path} holds no responses")
    return lines


async def _score_all(rewards: RewardSet, pairs: list[tuple[dict, dict]]) -> list[Tried]:
    return await asyncio.gather(*(_score(rewards, sample) for sample in _samples(pairs)))


async def _score(rewards: RewardSet, sample: AttentionSample) -> Tried:
    from rewards.combine import RewardError

    try:
        values = await rewards.score_text(sample)
        values = await rewards.score_attention(sample, values)
    except RewardError as failure:
        return Tried(sample.row_id, sample.gold, sample.response, {}, str(failure))
    return Tried(sample.row_id, sample.gold, sample.response, dict(values.raw), "")


def _samples(pairs: list[tuple[dict, dict]]) -> list[AttentionSample]:
    """One a line; responses to the same row are a group."""
    from rewards.sample import AttentionSample, image_size, question_text, row_options

    masses = [_masses(line) for _, line in pairs]
    members: dict[str, list[int]] = {}
    for i, (_, line) in enumerate(pairs):
        members.setdefault(str(line["id"]), []).append(i)
    return [
        AttentionSample(
            question=question_text(row["prompt"]),
            response=line["response"],
            gold=row["reward_model"]["ground_truth"],
            row={name: value for name, value in row.items() if name not in ("prompt", "images", "reward_model")},
            row_id=str(line["id"]),
            options=row_options(row["extra_info"]),
            image_sizes=tuple(image_size(image) for image in row["images"] or []),
            response_tokens=line.get("tokens"),
            masses=masses[i],
            group=tuple(masses[j] for j in members[str(line["id"])]),
            position=members[str(line["id"])].index(i),
        )
        for i, (row, line) in enumerate(pairs)
    ]


def _masses(line: dict[str, Any]) -> Masses | None:
    if "image_mass" not in line:
        return None
    import torch

    from rewards.sample import Masses

    return Masses(torch.tensor(line["image_mass"]).float(), torch.tensor(line["system_mass"]).float())


def _print(tried: list[Tried]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    names = list(dict.fromkeys(name for one in tried for name in one.raw))
    table = Table(Column("row", no_wrap=True), "gold", *names, Column("the response ends", no_wrap=True))
    for one in tried:
        values = ["failed" if one.error else _number(one.raw[name]) for name in names]
        table.add_row(*map(_literal, (one.row_id, one.gold, *values, one.response[-SHOWN:])))
    summary = Table("reward", "n", "mean", "std", "min", "max", "not applicable")
    for name in names:
        values = [one.raw[name] for one in tried if one.raw.get(name) is not None]
        figures = [statistics.fmean(values), statistics.pstdev(values), min(values), max(values)] if values else []
        missing = sum(not one.error and one.raw[name] is None for one in tried)
        summary.add_row(name, str(len(values)), *(map(_number, figures or [None] * 4)), str(missing))
    console = Console()
    console.print(table, summary)
    failed = [one for one in tried if one.error]
    if failed:
        print(f"{len(failed)} of {len(tried)} responses failed; the first:\n{failed[0].error}", file=sys.stderr)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _literal(text: str) -> Text:
    """Responses are not Rich's markup."""
    from rich.text import Text

    return Text(text)


if __name__ == "__main__":
    sys.exit(main())
