"""Shows what rewards give on real rows, without any training.

python -m rewards.try --reward my_reward --data rl_train.parquet --responses responses.jsonl
python -m rewards.try --reward accuracy path/my.py --option my_reward.words=30 --data … --responses …

DATA is a parquet file of RL rows. RESPONSES is JSONL: `id` (the row's `extra_info.id`), `response`, and by need
`tokens` (the response's length), `prefill` (what the chat template has written of the response, such as "<think>\\n")
and `image_mass`, `system_mass` (lists, tokens x layers: attention rewards). Gates are open. In the tables, – is "not
applicable", and n/a counts these.

Exit status: 0; 1 where a reward failed on a response; 2 for a mistake in the arguments or files.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewards.listing import Tried, show

if TYPE_CHECKING:
    from rewards.combine import RewardSet
    from rewards.sample import AttentionSample, Masses

ROWS = 40  # of the listing


def main(argv: list[str] | None = None) -> int:
    arguments = _parse(argv)
    try:
        tried = run(arguments.reward, arguments.option, arguments.data, arguments.responses, arguments.limit)
    except ValueError as error:
        print(f"avar try-reward: {error}", file=sys.stderr)
        return 2
    show(tried, arguments.rows or None)
    return 1 if any(one.error for one in tried) else 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="avar try-reward", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--reward", nargs="+", required=True, metavar="REWARD",
        help="NAME (in rewards/), FILE.py (all that it declares) or NAME=FILE.py; scored in this order",
    )  # fmt: skip
    parser.add_argument("--option", nargs="*", default=[], metavar="NAME.KEY=VALUE", help="options of the rewards")
    parser.add_argument("--data", required=True, metavar="FILE", help="parquet file of RL rows")
    parser.add_argument("--responses", required=True, metavar="FILE", help="JSONL: id, response, …")
    parser.add_argument("--limit", type=_number_from(1), metavar="N", help="score the first N responses only")
    parser.add_argument(
        "--rows", type=_number_from(0), default=ROWS, metavar="N",
        help=f"rows of the listing, the first and the last ones (default {ROWS}; 0: all)",
    )  # fmt: skip
    return parser.parse_args(argv)


def _number_from(least: int):
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number >= {least}")
        return int(text)

    return number


def run(rewards: list[str], options: list[str], data: str, responses: str, limit: int | None = None) -> list[Tried]:
    """Scores responses to rows of a data file.

    Args:
        rewards: each NAME, FILE.py or NAME=FILE.py.
        options: each NAME.KEY=VALUE, with VALUE as YAML.
        data: parquet file of RL rows.
        responses: JSONL file, see this module's documentation.
        limit: the first so many responses only.

    Returns: every response with its rewards, in the order of the file.

    Raises:
        ValueError: a file, reward, option, row or response is at fault.
    """
    from rewards.combine import RewardSet, parse_terms
    from rewards.finding import need_masses

    chosen = RewardSet(parse_terms(_lines(rewards, options), "--reward"))
    rows = _rows_by_id(data)
    pairs = []
    for number, line in _read_jsonl(responses)[:limit]:
        where = f"{responses}, line {number}"
        if str(line.get("id")) not in rows:
            raise ValueError(f"{where}: id {line.get('id')!r} is no row of {data}")
        _check_response(line, chosen, where)
        pairs.append((rows[str(line["id"])], line, _masses(line, where) if need_masses(chosen.needs) else None))
    return asyncio.run(_score_all(chosen, _samples(pairs)))


def _lines(rewards: list[str], options: list[str]) -> dict[str, dict[str, Any]]:
    """The `rewards:` block of a recipe that these arguments stand for."""
    import yaml

    lines: dict[str, dict[str, Any]] = {}
    for name, path in (pair for given in rewards for pair in _named(given)):
        if name in lines:
            raise ValueError(f"--reward names {name} twice; rename one of the two")
        lines[name] = {"weight": 1.0, "gate": None, "path": path}
    for given in options:
        place, _, value = given.partition("=")
        name, _, key = place.partition(".")
        if name not in lines or not key:
            raise ValueError(f"--option {given}: write NAME.KEY=VALUE with a NAME among {', '.join(lines)}")
        try:
            lines[name][key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"--option {given}: the value is not YAML: {' '.join(str(error).split())}") from None
    return lines


def _named(given: str) -> list[tuple[str, str | None]]:
    """(name, path) of each reward that an argument of --reward names."""
    from rewards.plugin import names_in

    name, _, path = given.partition("=")
    if path:
        return [(name, path)]
    if given.endswith(".py") or os.sep in given:
        return [(name, given) for name in names_in(given)]
    return [(name, None)]


def _rows_by_id(data: str) -> dict[str, dict[str, Any]]:
    from avar_rl.runtime.files import read_parquet

    rows = {}
    for number, row in enumerate(read_parquet(data), 1):
        extra, gold = row.get("extra_info") or {}, row.get("reward_model") or {}
        found = (extra.get("id") or extra.get("index")) if isinstance(extra, dict) else None
        if found is None or not row.get("prompt") or not isinstance(gold, dict) or "ground_truth" not in gold:
            raise ValueError(
                f"{data}, row {number} is no RL row: it needs prompt, reward_model.ground_truth, and extra_info.id "
                "or extra_info.index"
            )
        rows[str(found)] = row
    return rows


def _read_jsonl(path: str) -> list[tuple[int, dict[str, Any]]]:
    """Every line's number, from 1, and its object; empty lines are passed over."""
    try:
        texts = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    lines = []
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from None
        if not isinstance(line, dict):
            raise ValueError(f"{path}, line {number} is no object with `id` and `response`")
        lines.append((number, line))
    if not lines:
        raise ValueError(f"{path} holds no responses")
    return lines


def _check_response(line: dict[str, Any], rewards: RewardSet, where: str) -> None:
    from rewards.finding import need_masses

    if not isinstance(line.get("response"), str):
        raise ValueError(f"{where} has no text `response`")
    if not isinstance(line.get("prefill", ""), str):
        raise ValueError(f"{where}: `prefill` must be a text, not {line['prefill']!r}")
    if type(line.get("tokens", 0)) is not int:
        raise ValueError(f"{where}: `tokens` must be a whole number, not {line['tokens']!r}")
    if need_masses(rewards.needs) and not {"image_mass", "system_mass"} <= line.keys():
        raise ValueError(
            f"{where} has no image_mass and system_mass (tokens x layers), which {', '.join(rewards.weights)} needs"
        )


async def _score_all(rewards: RewardSet, samples: list[AttentionSample]) -> list[Tried]:
    return await asyncio.gather(*(_score(rewards, sample) for sample in samples))


async def _score(rewards: RewardSet, sample: AttentionSample) -> Tried:
    from rewards.combine import RewardError

    raw: dict[str, float | None] = dict.fromkeys(rewards.weights)
    try:
        values = await rewards.score_text(sample)
        values = await rewards.score_attention(sample, values)
    except RewardError as failure:
        return Tried(sample.row_id, sample.gold, sample.response, raw, str(failure))
    return Tried(sample.row_id, sample.gold, sample.response, raw | dict(values.raw), "")


def _samples(pairs: list[tuple[dict[str, Any], dict[str, Any], Masses | None]]) -> list[AttentionSample]:
    """One sample for each (row, line, masses); responses to the same row are a group."""
    from avar_rl.runtime.images import image_size
    from rewards.sample import AttentionSample, question_text, row_options

    members: dict[str, list[int]] = {}
    for i, (_, line, _) in enumerate(pairs):
        members.setdefault(str(line["id"]), []).append(i)
    return [
        AttentionSample(
            question=question_text(row["prompt"]),
            response=line["response"],
            gold=str(row["reward_model"]["ground_truth"]),
            row={name: value for name, value in row.items() if name not in ("prompt", "images", "reward_model")},
            row_id=str(line["id"]),
            options=row_options(row["extra_info"]),
            image_sizes=tuple(image_size(image, where=f"row {line['id']}") for image in row.get("images") or []),
            response_tokens=line.get("tokens"),
            prefill=line.get("prefill", ""),
            masses=masses,
            group=tuple(mass for j in members[str(line["id"])] if (mass := pairs[j][2]) is not None),
            position=members[str(line["id"])].index(i),
        )
        for i, (row, line, masses) in enumerate(pairs)
    ]


def _masses(line: dict[str, Any], where: str) -> Masses:
    import torch

    from rewards.sample import Masses

    try:
        image, system = (torch.tensor(line[key]).float() for key in ("image_mass", "system_mass"))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{where}: image_mass and system_mass must be lists of tokens x layers: {error}") from None
    if image.ndim != 2 or image.shape != system.shape:
        raise ValueError(
            f"{where}: image_mass and system_mass must both be tokens x layers; they are {list(image.shape)} and "
            f"{list(system.shape)}"
        )
    return Masses(image, system)


if __name__ == "__main__":
    sys.exit(main())
