"""The rollout record on disk: DIR/step_000012.jsonl, one response per line, and DIR/images/HASH.png.

A step's file is written whole or not at all, and written again where an interrupted run repeats the step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from avar_rl.runtime.files import write_whole

IMAGES = "images"
MEASURES = ("image_mass", "system_mass", "region_mass", "dependence", "weight", "entropy")  # by token


@dataclass(frozen=True)
class Rollout:
    """One response of one step.

    group: responses to one prompt share it.   row: id of the data row.
    images: paths, relative to the record's directory where the record holds a copy; empty where none were kept.
    tokens: the response token by token, special tokens included; text that several tokens share stands at the last.
    image_mass, system_mass, region_mass: attention mass of each token, mean of heads and layers. This and all that
        follows by token is empty where it was not recorded; region_mass: on the evidence boxes of the image.
    dependence: the log-probability that each token loses by a masked image, in nats.
    weight: the factor of each token's advantage.
    entropy: of the policy's distribution at each token, in nats.
    raw, weighted: each part of the reward before and after weight and gate; raw null: not applicable or undecided.
    closed: parts whose gate was closed.   masked: takes no part in the advantages.   error: of a reward that failed.
    """

    step: int
    group: str
    row: str
    question: str
    gold: str
    images: tuple[str, ...]
    response: str
    tokens: tuple[str, ...]
    image_mass: tuple[float, ...]
    system_mass: tuple[float, ...]
    raw: Mapping[str, float | None]
    weighted: Mapping[str, float]
    total: float
    closed: tuple[str, ...] = ()
    masked: bool = False
    error: str = ""
    region_mass: tuple[float, ...] = ()
    dependence: tuple[float, ...] = ()
    weight: tuple[float, ...] = ()
    entropy: tuple[float, ...] = ()

    @property
    def measured(self) -> dict[str, tuple[float, ...]]:
        """What was recorded by token, by the names of `MEASURES`."""
        return {name: values for name in MEASURES if (values := getattr(self, name))}

    def __post_init__(self) -> None:
        raw = [value for value in self.raw.values() if value is not None]
        by_token = [number for values in self.measured.values() for number in values]
        if not all(
            isinstance(number, int | float) for number in (self.total, *self.weighted.values(), *raw, *by_token)
        ):
            raise ValueError(f"row {self.row}: a score or a value of a token is no number")
        for name, values in self.measured.items():
            if len(values) != len(self.tokens):
                raise ValueError(f"row {self.row}: {len(values)} values of {name} for {len(self.tokens)} tokens")


_TUPLES = {"images", "tokens", "closed", *MEASURES}
_NAMES = {item.name: item for item in fields(Rollout)}
_REQUIRED = {name for name, item in _NAMES.items() if item.default is MISSING}


def write_step(directory: Path, step: int, rollouts: Sequence[Rollout]) -> Path:
    """Writes the responses of a step to `directory`, whole or not at all; returns the file. ValueError: a NaN."""
    path = directory / f"step_{step:06d}.jsonl"
    lines = (json.dumps(vars(rollout), ensure_ascii=False, allow_nan=False) + "\n" for rollout in rollouts)
    write_whole(path, "".join(lines).encode("utf-8"))
    return path


def store_image(directory: Path, content: bytes, suffix: str = ".png") -> str:
    """Keeps an encoded image once, however often it is sampled; returns its path relative to `directory`.

    The file's name is a hash of `content` and the suffix.
    """
    name = f"{IMAGES}/{hashlib.sha256(content).hexdigest()[:20]}{suffix}"
    if not (directory / name).is_file():
        write_whole(directory / name, content)
    return name


def step_files(directory: Path) -> dict[int, Path]:
    """Step → its file, in order of steps; `directory` may also be a run's, with the record in `rollouts` below it.

    Raises:
        ValueError: there is no record.
    """
    for place in (directory, directory / "rollouts"):
        found = ((path.stem.removeprefix("step_"), path) for path in place.glob("step_*.jsonl"))
        files = {int(number): path for number, path in found if number.isdecimal()}
        if files:
            return dict(sorted(files.items()))
    raise ValueError(
        f"{directory}: no rollout record (step_*.jsonl) here or in {directory / 'rollouts'}; "
        "GRPO writes one to avar.rollouts.dir"
    )


def read_step(path: Path) -> list[Rollout]:
    """The responses in a step's file. ValueError: a line is no response; the message names file and line."""
    with path.open("rb") as lines:  # str.splitlines would break at U+2028, too
        return list(_parse(path, lines))


def _parse(path: Path, lines: Iterable[bytes]) -> Iterable[Rollout]:
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number}"
        values: Any
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: not JSON ({error})") from error
        if not isinstance(values, dict) or not _REQUIRED <= values.keys() <= _NAMES.keys():
            raise ValueError(f"{where}: not a response of a rollout record, which has {', '.join(sorted(_NAMES))}")
        try:
            found: dict[str, Any] = values | {name: tuple(values[name]) for name in values.keys() & _TUPLES}
            yield Rollout(**found)
        except (TypeError, ValueError, AttributeError) as error:  # a value of another type than the field's
            raise ValueError(f"{where}: {error}") from error
