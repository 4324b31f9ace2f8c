"""The responses of a model to a benchmark, kept as they come: OUT/NAME/BENCHMARK.responses.jsonl and .origin.json.

A line is {"id", "sample" (null: greedy), "response", "tokens", "truncated", "prefill"}. The files beside them have
their names from here, too; `folder` is OUT/NAME everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avar_rl.runtime.files import file_stamps, write_json
from avar_rl.runtime.hub import model_directory
from avar_rl.runtime.kept_lines import KeptLines
from avar_rl.runtime.pixels import PixelLimits
from avar_rl.runtime.versions import stack_versions

if TYPE_CHECKING:
    from avar_rl.evaluation.answering.generate import Drawn, GenerationSettings

SAME = ("model", "data", "prompts", "generation", "limit")  # what all responses of a file have in common
SHOWN = 200  # characters of a value in a message


def responses_path(folder: Path, benchmark: str) -> Path:
    """Where the responses of a model are."""
    return folder / f"{benchmark}.responses.jsonl"


def samples_path(folder: Path, benchmark: str) -> Path:
    """Where the questions are that a model was asked."""
    return folder / f"{benchmark}.samples.parquet"


def scored_path(folder: Path, benchmark: str) -> Path:
    """Where the verdicts on the responses are."""
    return folder / f"{benchmark}.scored.jsonl"


def vas_path(folder: Path, benchmark: str) -> Path:
    """Where the visual attention of the prompts is, if it was measured."""
    return folder / f"{benchmark}.vas.json"


def origin_path(folder: Path, benchmark: str) -> Path:
    """Where it stands how these responses came about."""
    return folder / f"{benchmark}.origin.json"


def origin_of_answers(model: str, processor: Any, settings: GenerationSettings, replicas: int) -> dict[str, Any]:
    """What an origin says of the model that answers, and how. `model` is a directory or hub name."""
    pixels = PixelLimits.of(processor.image_processor)
    generation = asdict(settings) | {"least_pixels": pixels.least, "most_pixels": pixels.most}
    engines = {name: generation.pop(name) for name in ("tensor_parallel", "batch")}
    revision = None if Path(model).is_dir() else model_directory(model, weights=False).name  # of the hub
    return {
        "model": {"path": model, "revision": revision, "files": file_stamps(model)},
        "generation": generation,
        "engines": engines | {"replicas": replicas},
        "versions": stack_versions(),
    }


def record_of(answer: Drawn) -> dict[str, Any]:
    """The line of one response."""
    request, response = answer
    return {
        "id": request.question.conversation.id,
        "sample": request.sample,
        "response": response.text,
        "tokens": len(response.ids),
        "truncated": response.truncated,
        "prefill": response.prefill,
    }


class ResponsesFile:
    """The responses of one model to one benchmark. `done`: (id, sample) of those that are there."""

    def __init__(self, folder: Path, benchmark: str, origin: Mapping[str, Any]):
        """Opens the file, or begins it with its origin.

        Raises:
            ValueError: what is there came about otherwise (names what differs), or is damaged before its end.
        """
        self.path = responses_path(folder, benchmark)
        where = origin_path(folder, benchmark)
        if self.path.is_file() and not where.is_file():
            raise ValueError(f"{self.path} is there without {where.name}, which says how it came about; move it away")
        if self.path.is_file():
            _check_same(read_origin(folder, benchmark), json.loads(json.dumps(origin)), self.path)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(where, origin)
        self._lines = KeptLines(self.path, self._key, ", or choose another --out")
        self.done: set[tuple[str, int | None]] = set(self._lines.there)

    def _key(self, line: bytes, number: int) -> tuple[str, int | None]:
        record = _record(line, self.path, number)
        return record["id"], record["sample"]

    def append(self, answers: Sequence[Drawn]) -> None:
        """Adds responses; they are on the disk when this returns. OSError: they cannot be written."""
        records = [record_of(answer) for answer in answers]
        self._lines.append(records)
        self.done |= {(record["id"], record["sample"]) for record in records}

    def __enter__(self) -> ResponsesFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._lines.close()


def read_records(folder: Path, benchmark: str) -> list[dict[str, Any]]:
    """The responses of a finished or unfinished file, as they came. ValueError: there is none, or it is damaged."""
    path = responses_path(folder, benchmark)
    if not path.is_file():
        raise ValueError(f"{path}: no such file of responses")
    with path.open("rb") as file:
        return [_record(line, path, number) for number, line in enumerate(file, 1) if line.endswith(b"\n")]


def read_origin(folder: Path, benchmark: str) -> dict[str, Any]:
    """How the responses in a folder came about. ValueError: nothing says it, or the file is damaged."""
    path = origin_path(folder, benchmark)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; without it nobody knows how the responses came about")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and isinstance(found["data"]["hash"], str) and isinstance(found["n"], int):
            return found
    except (ValueError, TypeError, KeyError, RecursionError):
        pass  # said below
    raise ValueError(f"{path}: not how responses came about; move it and the responses beside it away")


def _record(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
        if isinstance(record["id"], str) and isinstance(record["response"], str) and "sample" in record:
            return record
    except (ValueError, TypeError, KeyError, RecursionError):
        pass  # said below
    raise ValueError(f"{path}, line {number}: no record of a response; remove the line, and it is asked again")


def _check_same(there: Any, now: Mapping[str, Any], path: Path) -> None:
    differences = []
    for part in SAME:
        before, after = _flat(part, there.get(part)), _flat(part, now.get(part))
        differences += [
            f"{key} is {_shown(before, key)} there and {_shown(after, key)} now"
            for key in dict.fromkeys((*before, *after))
            if before.get(key) != after.get(key)
        ]
    if differences:
        raise ValueError(f"{path} was made otherwise: {'; '.join(differences[:5])}. Choose another --out or NAME")


def _flat(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {key: leaf for part in value for key, leaf in _flat(f"{name}.{part}", value[part]).items()}
    return {name: value}


def _shown(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key])[:SHOWN] if key in values else "not"
