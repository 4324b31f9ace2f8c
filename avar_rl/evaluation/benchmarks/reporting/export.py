"""The greedy responses of a model in the files that VLMEvalKit and lmms-eval score, each in an environment of its own.

vlmevalkit: OUT/NAME/vlmevalkit/NAME_DATASET.tsv, which its datasets' `evaluate` takes: the columns that its tables
    have, without the image, and `prediction`. (Its JSON form it reads as a list, which `evaluate` cannot use.)
lmms-eval: OUT/NAME/lmms-eval/TASK.json, which its model `from_log` answers with, so that its tasks score the responses;
    and DATE_samples_TASK.jsonl, its documented log of samples, without `doc_hash`, which needs its own documents.

`prediction` and `resps` are a response as the model wrote it, or with `answer` the final answer only (`final_answer`).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from avar_rl.evaluation.benchmarks.benchmark import find
from avar_rl.evaluation.benchmarks.reporting.answered import figures_of, read_answered, read_results
from avar_rl.evaluation.benchmarks.scoring.official.reading import final_text
from avar_rl.runtime.files import write_whole
from data_tools.formats.rows import IMAGE_PLACEHOLDER
from data_tools.formats.sample import DataSample, known_options, letters

# benchmark/part → what VLMEvalKit and lmms-eval call it
DATASETS = {
    "mathvista/testmini": ("MathVista_MINI", "mathvista_testmini_format"),
    "mathvision/test": ("MathVision", "mathvision_test"),
    "mathvision_testmini/testmini": ("MathVision_MINI", "mathvision_testmini"),
    "mathverse/testmini": ("MathVerse_MINI", "mathverse_testmini"),
    "mathverse_vision_only/testmini": ("MathVerse_MINI_Vision_Only", "mathverse_testmini_vision_only"),
    "mmmu/validation": ("MMMU_DEV_VAL", "mmmu_val"),
    "mmmu_pro/standard": ("MMMU_Pro_10c", "mmmu_pro_standard"),
    "mmmu_pro/vision": ("MMMU_Pro_V", "mmmu_pro_vision"),
    "mmstar/val": ("MMStar", "mmstar"),
    "hallusionbench/image": ("HallusionBench", "hallusion_bench_image"),
}
HALLUSION_IDS = ("category", "subcategory", "visual_input", "set_id", "figure_id", "question_id")
Line = tuple[DataSample, str]  # a question, and what is exported of the response to it


class NoIndexError(ValueError):
    """A question that VLMEvalKit could not find by the index that it would be written with."""


def export(out: Path, name: str, layout: str, form: str = "response") -> tuple[list[Path], list[str]]:
    """Writes a model's greedy responses in a tool's layout, `vlmevalkit` or `lmms-eval`.

    Args:
        form: what of a response is written, `response` or `answer`.

    Returns:
        The files, and a sentence for each part of a benchmark that the tool could not find its questions in.

    Raises:
        ValueError: files of the model are missing or damaged.
    """
    results = read_results(out)
    text: Callable[[str], str] = final_answer if form == "answer" else str
    written, problems = [], []
    for benchmark, figures in figures_of(results, name, out).items():
        parts: dict[str, list[Line]] = {part.name: [] for part in find(benchmark).parts}
        for question in read_answered(out, name, benchmark, with_images=False):
            parts[question.sample.extra["part"]].append((question.sample, text(question.answers[0].response)))
        for part, lines in parts.items():
            dataset, task = DATASETS[f"{benchmark}/{part}"]
            try:
                if layout == "vlmevalkit":
                    contents = {f"{name}_{dataset}.tsv": prediction_file([prediction_row(*line) for line in lines])}
                else:
                    contents = _logs(name, task, lines, figures["limited"], _stamp(results))
            except NoIndexError as error:
                problems.append(str(error))
                continue
            for file, content in contents.items():
                written.append(out / name / layout / file)
                write_whole(written[-1], content)
    return written, problems


def final_answer(response: str) -> str:
    """The part of a response that states its answer, as the official rules see it; all where a thought is open."""
    found = final_text(response)
    return response if found is None else found


def without_marks(text: str) -> str:
    """A text without the marks of images."""
    return text.replace(IMAGE_PLACEHOLDER, " ").strip()


# ---- VLMEvalKit ----
def prediction_row(sample: DataSample, prediction: str) -> dict[str, str]:
    """A line of VLMEvalKit's prediction file: the columns of its table for this benchmark, and `prediction`.

    Raises:
        NoIndexError: the benchmark is one whose questions it looks up by an index that only its own table has.
    """
    extra, options = sample.extra, known_options(sample)
    row = {"index": _index(sample), "question": without_marks(sample.question), "answer": sample.gold}
    row |= dict(zip(letters(len(options)), map(without_marks, options), strict=True))
    row |= {key: _text(value) for key, value in extra.items() if key not in ("part", "options", *row)}
    row |= _own_columns(sample, options)
    return row | {"prediction": prediction}


def _index(sample: DataSample) -> str:
    """VLMEvalKit's index: of its own table where the questions came from that, else the official id."""
    if sample.source == "hallusionbench":  # it reads set, figure and question from the index
        return "_".join(str(sample.extra[key]) for key in HALLUSION_IDS)
    if "index" in sample.extra:
        return str(sample.extra["index"])
    if sample.source.startswith("mmmu"):
        raise NoIndexError(
            f"{sample.id}: VLMEvalKit looks up the questions of MMMU and MMMU-Pro by the index of its own table, which"
            " the hub's files lack: evaluate from that table (MMMU_DEV_VAL.tsv, MMMU_Pro_10c.tsv, MMMU_Pro_V.tsv)"
        )
    official = {"mathvista": "pid", "mathvision": "id", "mathverse": "sample_index"}.get(sample.source, "")
    return str(sample.extra.get(official, sample.id.rpartition("/")[2]))


def _own_columns(sample: DataSample, options: Sequence[str]) -> dict[str, str]:
    """What VLMEvalKit's table calls otherwise than the benchmark's own files."""
    extra = sample.extra
    if sample.source == "mathvista":
        own = {"question": extra.get("query"), "choices": list(options), "skills": extra.get("skills")}
        own |= {"answer": extra.get("answer"), "answer_option": sample.gold if options else None}
    elif sample.source == "mathvision":
        own = {"choices": list(options), "category": extra.get("subject"), "answer": extra.get("answer")}
    elif sample.source == "mathverse":
        metadata = {key: extra.get(key, "") for key in ("subject", "subfield")}
        own = {"question": extra.get("query_wo"), "metadata": metadata, "answer": extra.get("answer")}
    elif sample.source == "hallusionbench":
        own = {"l2-category": extra["subcategory"], "answer": sample.gold.capitalize()}
    elif sample.source == "mmstar":
        own = {"l2-category": extra.get("l2_category")}
    else:
        own = {"category": extra.get("subject"), "l2-category": extra.get("discipline"), "split": extra["part"]}
        own |= {} if options else {"A": "", "B": ""}  # by their absence it knows an open question
    return {key: _text(value) for key, value in own.items()}


def _text(value: Any) -> str:
    """A value as VLMEvalKit's tables write it: lists and mappings as Python does, nothing as an empty cell."""
    return "" if value is None else str(value)


def prediction_file(rows: Sequence[Mapping[str, str]]) -> str:
    """VLMEvalKit's TSV: every cell quoted, as it writes it itself."""
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "prediction"))
    text = io.StringIO()
    writer = csv.DictWriter(
        text, [*columns, "prediction"], "", delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


# ---- lmms-eval ----
def _logs(name: str, task: str, lines: Sequence[Line], limited: bool, stamp: str) -> dict[str, str]:
    """File name → content of what lmms-eval answers with and of its log of samples."""
    samples = "".join(json.dumps(line) + "\n" for line in sample_log(lines))
    return {
        f"{task}.json": json.dumps(response_log(name, task, lines, limited)),
        f"{stamp}_samples_{task}.jsonl": samples,
    }


def response_log(name: str, task: str, lines: Sequence[Line], limited: bool) -> dict[str, Any]:
    """What lmms-eval's `from_log` reads: it answers a task's document at place `doc_id` with `resps[0][0]`."""
    logs = [{"doc_id": place, "resps": [[said]]} for place, (_, said) in enumerate(lines)]
    arguments = {"model": name, "model_args": "", "limit": len(lines) if limited else None}
    return {"args": arguments, "model_configs": {"task": task}, "logs": logs}


def sample_log(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """The lines of lmms-eval's log of samples. `resps` is left out where it is what was scored, as documented."""
    found = []
    for place, (sample, said) in enumerate(lines):
        target = sample.extra.get("gt_answer_details", sample.extra.get("answer", sample.gold))
        line = {
            "doc_id": place,
            "input": without_marks(sample.text),
            "target": str(target),
            "filtered_resps": [_scored(said)],
        }
        if _scored(said) != said:
            line["resps"] = [[said]]
        found.append(line)
    return found


def _scored(said: str) -> str:
    """What lmms-eval scores of a response by its default: without `<think>…</think>`; an open `<think>` stays."""
    thought, closed, answer = said.rpartition("</think>")
    return (thought.partition("<think>")[0] + answer).strip() if closed else said


def _stamp(results: Mapping[str, Any]) -> str:
    """The date of the results as lmms-eval begins a file's name."""
    digits = re.sub(r"\D", "", str(results.get("date", "")))[:14].ljust(14, "0")
    return f"{digits[:8]}_{digits[8:]}"
