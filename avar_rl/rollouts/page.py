"""A rollout record as one HTML page without any other file: data as JSON, images as data URIs, script and style inline.

The page's script puts text of the record into the document as text nodes only, so markup in it is shown, never obeyed.
"""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from avar_rl.rollouts.record import Rollout, read_step, step_files
from avar_rl.runtime.images import open_image

DIGITS = 4


@dataclass(frozen=True)
class Selection:
    """What of a record goes into the page: the whole record of a 7B run would be too much for a browser."""

    steps: tuple[int, ...] | None = None  # None: `max_steps` of them, evenly spaced
    max_steps: int = 20
    groups: int = 16  # of each step, the first ones
    image_size: int = 448  # longest side in pixels


def build(directory: Path, selection: Selection, title: str) -> str:
    """The page of the record in `directory`, as HTML text that needs no other file.

    Raises:
        ValueError: no record, a step that it lacks, a line or an image that cannot be read.
    """
    files = step_files(directory)
    images = _Images(selection.image_size)
    steps, groups = [], []
    for step in _chosen_steps(files, selection):
        by_group = _by_group(read_step(files[step]))
        shown = list(by_group.values())[: selection.groups]
        steps.append(_step_summary(step, by_group, len(shown)))
        groups += [_group(step, rollouts, files[step].parent, images) for rollouts in shown]
    recorded = {"first": min(files), "last": max(files), "count": len(files)}
    data = {"recorded": recorded, "steps": steps, "groups": groups, "images": images.uris}
    return _render(title, data | {"parts": _parts(groups)})


def _chosen_steps(files: dict[int, Path], selection: Selection) -> list[int]:
    """The steps asked for, or `max_steps` evenly spaced ones with the first and the last."""
    steps = list(files)
    if selection.steps is not None:
        missing = [step for step in selection.steps if step not in files]
        if missing:
            raise ValueError(f"step {missing[0]} is not in the record, which holds {steps[0]} to {steps[-1]}")
        return sorted(set(selection.steps))
    count = min(selection.max_steps, len(steps))
    if count == 1:
        return steps[-1:]
    return [steps[round(i * (len(steps) - 1) / (count - 1))] for i in range(count)]


def _by_group(rollouts: Sequence[Rollout]) -> dict[str, list[Rollout]]:
    groups = defaultdict(list)
    for rollout in rollouts:
        groups[rollout.group].append(rollout)
    return dict(groups)


def _step_summary(step: int, groups: dict[str, list[Rollout]], shown: int) -> dict[str, Any]:
    """Figures of the whole step, of the responses that are not shown, too."""
    rollouts = [rollout for members in groups.values() for rollout in members]
    decided = [accuracy for r in rollouts if (accuracy := r.raw.get("accuracy")) is not None]
    return {
        "step": step,
        "groups": len(groups),
        "shown": shown,
        "responses": len(rollouts),
        "total": fmean(r.total for r in rollouts) if rollouts else 0.0,
        "accuracy": fmean(decided) if decided else None,
    }


def _group(step: int, rollouts: Sequence[Rollout], place: Path, images: _Images) -> dict[str, Any]:
    first = rollouts[0]
    return {
        "step": step,
        "row": first.row,
        "question": first.question,
        "gold": first.gold,
        "images": [images.index(place / path) for path in first.images],
        "responses": [_response(rollout) for rollout in rollouts],
    }


def _response(rollout: Rollout) -> dict[str, Any]:
    return {
        "tokens": rollout.tokens,
        "measured": {name: [round(value, DIGITS) for value in values] for name, values in rollout.measured.items()},
        "raw": rollout.raw,
        "weighted": rollout.weighted,
        "total": rollout.total,
        "closed": rollout.closed,
        "masked": rollout.masked,
        "error": rollout.error,
    }


def _parts(groups: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the parts, in the order of their first appearance."""
    names: dict[str, None] = {}
    for group in groups:
        for response in group["responses"]:
            names |= dict.fromkeys([*response["weighted"], *response["raw"]])
    return list(names)


class _Images:
    """Data URIs of the images seen so far; each file is embedded once."""

    def __init__(self, size: int):
        self.uris: list[str] = []
        self._size = size
        self._known: dict[Path, int] = {}

    def index(self, path: Path) -> int:
        if path not in self._known:
            self._known[path] = len(self.uris)
            self.uris.append(_data_uri(path, self._size))
        return self._known[path]


def _data_uri(path: Path, size: int) -> str:
    try:
        image = open_image(path, where="an image of the record").convert("RGB")
    except OSError as error:
        raise ValueError(f"image {path} of the record cannot be read: {error}") from error
    image.thumbnail((size, size))
    content = io.BytesIO()
    image.save(content, "PNG" if image.width * image.height <= 128 * 128 else "JPEG", quality=85)
    kind = "png" if content.getvalue().startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


def _render(title: str, data: dict[str, Any]) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("avar_rl.rollouts", "template"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":"), "allow_nan": False}
    return environment.get_template("page.html.jinja").render(title=title, data=data)
