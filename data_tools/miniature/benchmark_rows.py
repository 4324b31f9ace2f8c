"""Rows in the documented schemas of the seven benchmarks, about scenes of the miniature world, traps included.

Each function is given a generator and the number of rows, and gives them as the hub's files have them (`mmstar` and
`hallusionbench` as VLMEvalKit's TSV). The first rows of a table are its traps, plain ones follow.
"""

from __future__ import annotations

import base64
import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from data_tools.miniature.questions import (
    COLOUR_NAMES,
    OPTIONS,
    Family,
    WorldQuestion,
    compare,
    count_colour,
    count_form,
    position,
    rectangle,
    shape_share,
)
from data_tools.miniature.scenes import FORMS, Scene, render

Row = dict[str, Any]
FREE = (count_form, count_colour, shape_share, rectangle)
FIVE = [*COLOUR_NAMES, "none"]
TEN = [*COLOUR_NAMES, "white", "black", "pink", "brown", "grey", "none"]
VERSIONS = ("Text Dominant", "Text Lite", "Vision Intensive", "Vision Dominant", "Vision Only")
HINTS = {
    "text": "Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.",
    "integer": "Please answer the question requiring an integer answer and provide the final value, e.g., 1, 2, 3, at"
    " the end.",
    "float": "Please answer the question requiring a floating-point number with one decimal place and provide the final"
    " value, e.g., 1.2, 1.3, 1.4, at the end.",
    "list": "Please answer the question requiring a Python list as an answer and provide the final list, e.g.,"
    " [1, 2, 3], [1.2, 1.3, 1.4], at the end.",
}


def _drawn(rng: random.Random, families: Sequence[Family]) -> Iterable[WorldQuestion]:
    """Questions of these families in turn, without end."""
    return (family(rng) for family in itertools.cycle(families))


def _stem(question: WorldQuestion) -> str:
    return question.text.removesuffix(OPTIONS).strip()


def _picture(scene: Scene | None) -> bytes:
    assert scene is not None  # of a family of questions about an image
    return render(scene)


def _stored(question: WorldQuestion) -> Row:
    return {"bytes": _picture(question.scene), "path": None}


def _colour(question: WorldQuestion) -> str:
    """The right colour of a question of the family `position`."""
    return COLOUR_NAMES["ABCD".index(question.gold)]


def mathvista(rng: random.Random, rows: int) -> list[Row]:
    """Traps: a choice that stands twice, letters as choices, a query that lacks one, unit and precision, a list."""
    asked = _drawn(rng, (position, position, position, rectangle, rectangle, *FREE))
    return [_mathvista(number, question) for number, question in zip(range(1, rows + 1), asked, strict=False)]


def _mathvista(pid: int, asked: WorldQuestion) -> Row:
    question, choices, unit, precision, kind = _stem(asked), None, None, None, "integer"
    answer = asked.gold
    if asked.options:
        choices, kind, answer = list(COLOUR_NAMES), "text", _colour(asked)
    if pid == 1:
        choices = [*COLOUR_NAMES, answer]
    elif pid == 2:
        question, choices, answer = f"{question} {OPTIONS.replace(')', ':')}", list("ABCD"), asked.gold
    elif pid == 4:
        unit, precision, kind, answer = "cm", 1.0, "float", "4.0"
    elif pid == 5:
        kind, answer = "list", "[2, 3]"
    elif not asked.options and not answer.isdigit():
        kind, choices = "text", [answer, "7"]
    listed = [f"({letter}) {text}" for letter, text in zip("ABCDE", choices or [], strict=False)]
    lines = [f"Hint: {HINTS[kind]}", f"Question: {question}" + (f" (Unit: {unit})" if unit else "")]
    lines += ["Choices:", *(listed[:-1] if pid == 3 else listed)] if listed else []
    skills = ["arithmetic reasoning"] if kind != "text" else ["scientific reasoning", "logical reasoning"]
    task = "geometry problem solving" if asked.kind in ("area", "perimeter") else "figure question answering"
    return {
        "pid": str(pid),
        "question": question,
        "image": f"images/{pid}.jpg",
        "decoded_image": _stored(asked),
        "choices": choices,
        "unit": unit,
        "precision": precision,
        "answer": answer,
        "question_type": "multi_choice" if choices else "free_form",
        "answer_type": kind,
        "metadata": {"task": task, "context": "synthetic scene", "category": "general-vqa", "skills": skills},
        "query": "\n".join(lines),
    }


def mathvision(rng: random.Random, rows: int) -> list[Row]:
    """Traps: a form feed and a unit in braces in golds, a letter gold without options, options that are only letters,
    one picture that the text names three times, and one that it does not name."""
    asked = _drawn(rng, (shape_share, rectangle, position, position, count_form, count_colour, position))
    return [_mathvision(number, question) for number, question in zip(range(1, rows + 1), asked, strict=False)]


def _mathvision(number: int, asked: WorldQuestion) -> Row:
    question, answer = f"{_stem(asked)}\n<image1>", asked.gold
    options = FIVE if asked.options else []
    if number == 1:
        answer = answer.replace("\\f", "\f")
    elif number == 2:
        answer = "90{degrees}"
    elif number == 3:
        question, options = asked.text, []
    elif number == 4:
        question, options = asked.text.replace("? ", "? <image1>\n"), list("ABCDE")
    elif number == 5:
        question = f"{question}<image2>\n<image3>"
    elif number == 6:
        question = _stem(asked)
    return {
        "id": str(number),
        "question": question,
        "options": options,
        "image": f"images/{number}.jpg",
        "decoded_image": _stored(asked),
        "answer": answer,
        "solution": None,
        "level": 1 + number % 5,
        "subject": ("counting", "analytic geometry", "arithmetic")[number % 3],
    }


def mathverse(rng: random.Random, rows: int) -> list[Row]:
    """Each problem in five versions, of which Vision Only has no question of its own; every other one has choices. Its
    `image` is the encoded picture, for the writer to put into a file."""
    asked = _drawn(rng, (position, *FREE[:1], position, *FREE[1:]))
    found = []
    for problem, question in zip(range(1, -(-rows // 5) + 1), asked, strict=False):
        whole = _stem(question)
        if question.options:
            whole += "\nChoices:\n" + "\n".join(f"{a}:{text}" for a, text in zip("ABCD", COLOUR_NAMES, strict=True))
        found += [_mathverse(5 * problem - 4 + place, problem, v, question, whole) for place, v in enumerate(VERSIONS)]
    return found[:rows]


def _mathverse(index: int, problem: int, version: str, asked: WorldQuestion, whole: str) -> Row:
    what = "provide the correct option letter, e.g., A, B, C, D" if asked.options else "provide the final value"
    question = "" if version == "Vision Only" else whole
    direct = f"Please directly answer the question and {what}, e.g., 1, 2.5, 300, at the end."
    return {
        "sample_index": str(index),
        "problem_index": str(problem),
        "problem_version": version,
        "question": question,
        "image": _picture(asked.scene),
        "answer": asked.gold,
        "question_type": "multi-choice" if asked.options else "free-form",
        "metadata": {"split": "testmini", "source": "made", "subject": "Plane Geometry", "subfield": "Area"},
        "query_wo": f"{direct}\n{f'Question: {question}' if question else ''}".strip(),
        "query_cot": f"Please first conduct reasoning, and then answer.\n{question}".strip(),
        "question_for_eval": whole,
    }


def mmmu(rng: random.Random, rows: int) -> list[Row]:
    """Traps: nine options, seven images, images in options, an image named twice, open questions with one gold and with
    several; options and golds are lists in a text."""
    asked = _drawn(rng, (position, position, position, position, count_form, count_form, position, count_colour))
    subjects = ("Accounting", "Art_Theory", "Clinical_Medicine", "Architecture_and_Engineering")
    found = []
    for place, question in zip(range(rows), asked, strict=False):
        subject = subjects[place % len(subjects)]
        found.append(_mmmu(f"validation_{subject}_{1 + place // len(subjects)}", place, question, rng))
    return found


def _mmmu(id_: str, place: int, asked: WorldQuestion, rng: random.Random) -> Row:
    pictures = [_stored(asked)]
    question, options, answer = f"{_stem(asked)} <image 1>", list(COLOUR_NAMES), asked.gold
    if not asked.options:
        options = []
    if place == 0:
        options = [*COLOUR_NAMES, *TEN[4:9]]
    elif place == 1:
        pictures += [_stored(position(rng)) for _ in range(6)]
        question = "".join(f"<image {number}> " for number in range(1, 8)) + f"Of the first one: {_stem(asked)}"
    elif place == 2:
        pictures += [_stored(position(rng))]
        question, options, answer = f"Which one was shown first? {question}", ["<image 2>", "<image 1>"], "B"
    elif place == 3:
        question = f"<image 1> Look. {question}"
    elif place == 5:
        answer = str([answer, f"{answer} shapes"])
    images = {f"image_{n}": pictures[n - 1] if n <= len(pictures) else None for n in range(1, 8)}
    head = {"id": id_, "question": question, "options": str(options), "explanation": ""}
    kind = "multiple-choice" if options else "open"
    tail = {"img_type": "['Diagrams']", "answer": answer, "topic_difficulty": ("Easy", "Medium", "Hard")[place % 3]}
    return head | images | tail | {"question_type": kind, "subfield": "Shapes"}


def mmmu_pro(rng: random.Random, rows: int) -> tuple[list[Row], list[Row]]:
    """The rows of both settings, standard and vision, which ask the same. Ten options, shuffled; in the first they are
    images, whose marks still name the columns."""
    standard, vision = [], []
    for place, asked in zip(range(rows), _drawn(rng, (position,)), strict=False):
        options = rng.sample(TEN, 10)
        row = {"id": f"test_Accounting_{place + 1}", "answer": "ABCDEFGHIJ"[options.index(_colour(asked))]}
        row |= {"options": str(options), "subject": "Accounting"}
        images: Row = {f"image_{n}": _stored(asked) if n == 1 else None for n in range(1, 8)}
        vision.append(row | {"image": _stored(asked)})
        if place == 0:
            row |= {"options": str(["<image 3>", "<image 1>", "<image 2>"]), "answer": "B"}
            images |= {f"image_{n}": _stored(position(rng)) for n in (2, 3)}
        question = "Which is the first?" if place == 0 else f"<image 1> {_stem(asked)}"
        standard.append(row | images | {"question": question, "topic_difficulty": "Hard"})
    return standard, vision


def mmstar(rng: random.Random, rows: int) -> list[Row]:
    """In the columns of VLMEvalKit's TSV: every question has four options, in the first one of them is `None`."""
    found = []
    for index, asked in zip(range(rows), _drawn(rng, (position,)), strict=False):
        options: dict[str, str] = dict(zip("ABCD", COLOUR_NAMES, strict=True))
        if index == 0:
            options["D" if asked.gold != "D" else "A"] = "None"
        row = {"index": str(index), "question": _stem(asked), **options, "answer": asked.gold}
        row |= {"category": ("math", "coarse perception")[index % 2], "l2_category": ("geometry", "scene")[index % 2]}
        found.append(row | {"image": base64.b64encode(_picture(asked.scene)).decode()})
    return found


def hallusionbench(rng: random.Random, rows: int) -> list[Row]:
    """In the columns of VLMEvalKit's TSV. Of each set two figures, and two questions that are asked of both; the second
    question of a figure refers to the row of the first for its picture."""
    found = []
    for number in range(-(-rows // 4)):
        scenes, pairs = [compare(rng).scene for _ in range(2)], [rng.sample(FORMS, 2) for _ in range(2)]
        for (figure, scene), (place, (more, less)) in itertools.product(enumerate(scenes), enumerate(pairs)):
            forms = [shape.form for shape in scene.shapes] if scene else []
            ids = ("VD" if number % 2 else "VS", "figure", str(1 + (figure > 0)), str(number), str(figure), str(place))
            index, first = "_".join(ids), "_".join((*ids[:-1], "0"))
            gold = "Yes" if forms.count(more) > forms.count(less) else "No"
            image = first if place else base64.b64encode(_picture(scene)).decode()
            row = {"index": index, "category": ids[0], "l2-category": ids[1], "image": image, "answer": gold}
            found.append(row | {"question": f"Are there more {more}s than {less}s?"})
    return found[:rows]


TABLES: dict[str, Callable[[random.Random, int], list[Row]]] = {
    "mathvista": mathvista,
    "mathvision": mathvision,
    "mathverse": mathverse,
    "mmmu": mmmu,
    "mmmu_pro_standard": lambda rng, rows: mmmu_pro(rng, rows)[0],
    "mmmu_pro_vision": lambda rng, rows: mmmu_pro(rng, rows)[1],
    "mmstar": mmstar,
    "hallusionbench": hallusionbench,
}
