"""What a run leaves for the analysis: one small JSON file, from the recipe's own files, written whole.

{"arm", "seed", "knobs", "overrides", "plan", "commit", "versions",
 "stages": [{"name", "seconds", "processor_seconds", "digest"}],
 "questions": {"id": [...], "kind": [...]},
 "models": {NAME: {"checkpoint": digest of the weights' files, "measures": {...},
                   "by_question": {"accuracy": [...], "accuracy_sampled": [...]}}}}
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from avar_rl.evaluation.summary import read_seconds, read_used
from avar_rl.runtime.files import write_whole
from avar_rl.runtime.versions import stack_versions
from avar_rl.study.planning import ArmRun, Job
from avar_rl.study.study_file import Study

PER_QUESTION = {"accuracy": False, "accuracy_sampled": True}  # measures → whether of samples


def result_file(study: Study, arm: str, seed: int) -> Path:
    return Path(study.results) / "runs" / f"{arm}-{seed}.json"


def settings_of(study: Study, arm: str) -> dict[str, Any]:
    """What a result must have been made with to be that arm's."""
    return {"recipe": study.recipe, "knobs": study.knobs_of(arm), "overrides": study.overrides_of(arm)}


def read_result(study: Study, arm: str, seed: int) -> dict[str, Any] | None:
    """The result of a run; None where there is none.

    Raises:
        ValueError: it was made with other settings than the study has now, or is damaged.
    """
    path = result_file(study, arm, seed)
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        settings = {name: found[name] for name in ("recipe", "knobs", "overrides")}
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no result of a study ({error}): remove it and run the study again") from error
    if settings != settings_of(study, arm):
        raise ValueError(f"{path} was made with other settings of arm {arm}: run the study again, which replaces it")
    return found


def is_current(study: Study, run: ArmRun) -> bool:
    """Whether the run's result is there, was made by the commands that the study plans now, and has all measures."""
    path = result_file(study, run.arm, run.seed)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        measured = all(study.all_measures.keys() <= model["measures"].keys() for model in found["models"].values())
        return measured and found["plan"] == run.digests[-1]
    except (OSError, json.JSONDecodeError, AttributeError, KeyError, TypeError, UnicodeDecodeError):
        return False


def keep_result(study: Study, job: Job) -> Path:
    """Writes the result of a finished run, and returns its file. ValueError: a file of the run is damaged."""
    run, out = job.run, job.out
    questions, models = _models(study, out)
    result = {
        "arm": run.arm,
        "seed": run.seed,
        **settings_of(study, run.arm),
        "plan": run.digests[-1],
        "commit": _commit(),
        "versions": stack_versions(),
        "stages": _stages(job),
        "questions": questions,
        "models": models,
    }
    path = result_file(study, run.arm, run.seed)
    write_whole(path, _shown(result))
    return path


def _shown(result: Mapping[str, Any]) -> str:
    """JSON in which lists over questions, the bulk, are one line each."""
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in result.items() if name != "models"]
    for_models = []
    for name, model in result["models"].items():
        parts = ",\n".join(f"      {json.dumps(part)}: {json.dumps(value)}" for part, value in model.items())
        for_models.append(f"    {json.dumps(name)}: {{\n{parts}\n    }}")
    joined = ",\n".join(for_models)
    return "{\n" + ",\n".join([*lines, f'  "models": {{\n{joined}\n  }}']) + "\n}\n"


def _commit() -> str | None:
    """The commit of the checkout in the working directory, "+" behind it where files differ from it."""
    say = {"capture_output": True, "text": True, "timeout": 60}
    try:
        commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **say)
        changed = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], **say)
    except FileNotFoundError:  # no git on this machine
        return None
    return None if commit.returncode else commit.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _stages(job: Job) -> list[dict[str, Any]]:
    seconds, used = read_seconds(job.out / "stages"), read_used(job.out / "logs")
    return [
        {
            "name": name,
            "seconds": used[name][0] if name in used else seconds.get(name),
            "processor_seconds": used[name][1] if name in used else None,
            "digest": digest,
        }
        for name, digest in zip((stage.name for stage in job.run.stages), job.run.digests, strict=True)
    ]


def _models(study: Study, out: Path) -> tuple[dict[str, list[str]], dict[str, Any]]:
    questions: dict[str, list[str]] = {}
    models = {}
    for path in sorted((out / "evaluation").glob("*.json")):
        figures = _json(path)
        asked, by_question = _by_question(path.with_name(f"{path.stem}.responses.jsonl"))
        if questions and asked != questions:
            raise ValueError(f"{path.parent}: {path.stem} was asked other questions than {next(iter(models))}")
        questions = asked
        files = figures.get("origin", {}).get("model", {}).get("files", {})
        models[path.stem] = {
            "checkpoint": hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:12],
            "measures": {name: _measure(out, path.stem, one) for name, one in study.all_measures.items()},
            "by_question": by_question,
        }
    return questions, models


def _measure(out: Path, model: str, measure: Any) -> float | None:
    """None where it is of other models, and where the file says null or is not there: a model that was not measured."""
    path = out / measure.file.replace("{model}", model)
    if (measure.models and model not in measure.models) or not path.is_file():
        return None
    value: Any = _json(path)
    for part in measure.key.split("."):
        if not isinstance(value, dict) or part not in value:
            raise ValueError(f"{path} has no {measure.key}")
        value = value[part]
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError(f"{path}: {measure.key} is no number but {value!r}")
    return value


def _by_question(path: Path) -> tuple[dict[str, list[str]], dict[str, list[float]]]:
    """Questions and, of each, whether the greedy response is right and the share of samples that are."""
    rows: dict[str, dict[bool, list[float]]] = {}
    kinds: dict[str, str] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            kinds[row["id"]] = row["kind"]
            rows.setdefault(row["id"], {}).setdefault(row["sample"] is not None, []).append(row["accuracy"])
    values = {
        name: [round(fmean(found[sampled]), 4) for found in rows.values()]
        for name, sampled in PER_QUESTION.items()
        if rows and all(sampled in found for found in rows.values())
    }
    return {"id": list(rows), "kind": [kinds[name] for name in rows]}, values


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
