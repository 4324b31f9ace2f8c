"""A small folder of an evaluation, written by hand: two models, two benchmarks, every kind of verdict."""

import io
import json
from pathlib import Path

from PIL import Image, ImageDraw

from data_tools.formats.sample import DataSample, SampleWriter

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> & \u2028 é 漢"


def picture(colour: str, size: tuple[int, int] = (96, 96), place: int = 20) -> bytes:
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).ellipse((place, place, place + 56, place + 56), fill=colour)
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def vista(number: int, **changes) -> DataSample:
    """A question of MathVista: letters as options, the circle is red."""
    values = {
        "id": f"mathvista/testmini/{number}", "source": "mathvista", "question": f"What colour has circle {number}?",
        "gold": "A", "gold_kind": "choice", "images": (picture("#d62828", place=number),), "options": ("red", "blue"),
        "extra": {
            "pid": str(number), "question": f"What colour has circle {number}?", "answer": "red", "precision": None,
            "question_type": "multi_choice", "answer_type": "text", "unit": None, "choices": ["red", "blue"],
            "query": f"Hint: …\nQuestion: What colour has circle {number}?\nChoices:\n(A) red\n(B) blue",
            "task": "figure question answering", "context": "synthetic scene", "part": "testmini",
            "metadata": {"task": "figure question answering", "skills": ["statistical reasoning"]},
        },
    }  # fmt: skip
    return DataSample(**(values | changes))


def hallusion(set_id: str, figure: str, question: str, gold: str) -> DataSample:
    number = f"VD_illusion_1_{set_id}_{figure}_{question}"
    return DataSample(
        id=f"hallusionbench/image/{number}",
        source="hallusionbench",
        question="Are the two lines equally long in this picture?",
        gold=gold,
        gold_kind="words",
        images=(picture("#1d4ed8", place=int(set_id)),),
        extra={
            "category": "VD", "subcategory": "illusion", "visual_input": "1", "set_id": set_id, "figure_id": figure,
            "question_id": question, "question": "Are the two lines equally long in this picture?",
            "answer": {"yes": "1", "no": "0"}[gold], "gt_answer_details": "They are.", "part": "image",
        },
    )  # fmt: skip


SAMPLES = {
    "mathvista": [vista(1), vista(2), vista(3), vista(4)],
    "hallusionbench": [
        hallusion("0", "0", "0", "yes"),
        hallusion("0", "1", "0", "no"),
        hallusion("1", "0", "0", "yes"),
    ],
}
# question's place, drawn, response, tokens, truncated, official (answer, right, parsed), ours (answer, right)
BASE = {
    "mathvista": [
        (0, None, "<think>It is red.</think><answer>A</answer>", 12, False, ("red", True, True), ("A", True)),
        (0, 0, "<think>It is blue.</think><answer>B</answer>", 12, False, ("blue", False, True), ("B", False)),
        (1, None, "<think>so long", 64, True, (None, False, False), (None, None)),
        (1, 0, "<answer>A</answer>", 5, False, ("red", True, True), ("A", True)),
        (2, None, "<answer>red</answer>", 5, False, (None, False, False), ("red", True)),
        (2, 0, "<answer>A</answer>", 5, False, ("red", True, True), ("A", True)),
        (3, None, HOSTILE, 30, False, ("blue", False, True), (None, False)),
        (3, 0, "B", 1, False, ("blue", False, True), ("B", False)),
    ],
    "hallusionbench": [
        (0, None, "Yes, they are.", 5, False, ("yes", True, True), ("Yes, they are.", True)),
        (1, None, "No.", 2, False, ("no", True, True), ("No", True)),
        (2, None, "No.", 2, False, ("no", False, True), ("No", False)),
    ],
}
TUNED = {
    "mathvista": [
        (place, None, "<think>Look.</think><answer>A</answer>", 10, False, ("red", True, True), ("A", True))
        for place in range(4)
    ],
    "hallusionbench": BASE["hallusionbench"],
}
ORIGIN = {
    "model": {"path": "models/base", "files": {"model.safetensors": [1, 2]}},
    "data": {"path": "data", "revision": "abc123"},
    "prompts": {"name": "ours", "hash": "0f0f0f"},
    "generation": {"temperature": 1.0, "seed": 0, "max_new_tokens": 64, "min_pixels": 3136, "max_pixels": 12845056},
    "limit": 4,
    "n": 4,
    "official_n": 1000,
    "versions": {"vllm": "0.28.0"},
}


def lines(path: Path, found) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in found))


def write_model(out: Path, name: str, answers=None, samples=None) -> None:
    """The files of one model: questions, responses, scores."""
    for benchmark, found in (BASE if answers is None else answers).items():
        asked = (samples or SAMPLES)[benchmark]
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        with SampleWriter(folder / f"{benchmark}.samples.parquet") as writer:
            for sample in asked:
                writer.add(sample)
        responses, scored = [], []
        for place, drawn, text, tokens, truncated, official, ours in found:
            key = {"id": asked[place].id, "sample": drawn}
            responses.append(key | {"response": text, "tokens": tokens, "truncated": truncated, "prefill": ""})
            says = {"answer": official[0], "right": official[1], "parsed": official[2]}
            scored.append(key | {"official": says, "ours": {"answer": ours[0], "right": ours[1]}, "judge": None})
        lines(folder / f"{benchmark}.responses.jsonl", responses)
        lines(folder / f"{benchmark}.scored.jsonl", scored)


def column(accuracy: float, interval: list[float] | None = None, **more) -> dict:
    empty = {"avg_at_k": None, "pass_at_k": None, "majority": None, "headline": {}}
    return {"accuracy": accuracy, "interval": interval or [0.1, 0.9]} | empty | more


def figures(n: int, official_n: int, official: dict, ours: dict, **more) -> dict:
    return {
        "n": n, "official_n": official_n, "limited": n != official_n,
        "columns": {"official": official, "ours": ours, "judge": None}, "groups": {},
        "counts": {"truncated": 0, "unparsed": 0, "undecided": 0, "judge_failed": 0},
        "tokens": {"mean": 18.2, "quartiles": [5, 9, 12], "max": 64}, "vas": None,
        "origin": ORIGIN | {"n": n, "official_n": official_n},
    } | more  # fmt: skip


def estimate(value: float, **more) -> dict:
    return {"value": value, "interval": [0.2, 0.8]} | more


MEANS = {
    "mean of aAcc, fAcc, qAcc": estimate(0.611),
    "aAcc": estimate(0.667),
    "fAcc": estimate(0.5),
    "qAcc": estimate(0.666),
}
TASK = {"n": 4, "official": {"accuracy": 0.25, "interval": [0.1, 0.9]}, "ours": {"accuracy": 0.5, "interval": None}}
DRAWN = {
    "avg_at_k": estimate(0.5),
    "pass_at_k": estimate(0.75, by_k={"pass@1": estimate(0.5), "pass@2": estimate(0.75)}),
    "majority": estimate(0.5),
}
RESULTS = {
    "models": {
        "base": {
            "benchmarks": {
                "mathvista": figures(
                    4, 1000, column(0.25, **DRAWN), column(0.5),
                    groups={"task": {"figure question answering": TASK}},
                    counts={"truncated": 1, "unparsed": 2, "undecided": 1, "judge_failed": 0},
                    vas={"vas": 8.1, "image_mass": 0.21, "system_mass": 0.1},
                ),
                "hallusionbench": figures(951, 951, column(0.667, headline=MEANS), column(0.667, headline=MEANS)),
            },
            "mean": None,
        },
        "tuned": {"benchmarks": {"mathvista": figures(4, 1000, column(1.0), column(1.0))}, "mean": None},
    },
    "versions": {"avar_rl": "0.1.0"},
    "date": "2026-11-27",
}  # fmt: skip


def write_folder(out: Path) -> Path:
    """An evaluation's folder as `avar score` leaves it: `base` and `tuned`, four of MathVista's questions."""
    write_model(out, "base")
    write_model(out, "tuned", {"mathvista": TUNED["mathvista"]})
    (out / "benchmarks.json").write_text(json.dumps(RESULTS))
    return out
