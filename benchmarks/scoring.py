"""Time of scoring stored responses to the seven benchmarks: `python -m benchmarks.scoring [--words 400] [--samples 0]`.

Makes up questions in the official numbers, 11,639 in all, and responses that think in so many words before they answer:
by letter, by number, by formula, in a box, in prose, right and wrong, cut off. Prints the seconds of reading, of either
column, and of the figures with their intervals, for each benchmark, on one core. No images, no model.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from avar_rl.evaluation.benchmarks.asking.records import origin_path, read_records, responses_path, samples_path
from avar_rl.evaluation.benchmarks.benchmark import ALL, Benchmark, chosen
from avar_rl.evaluation.benchmarks.scoring.both_columns import by_official_rules, by_our_grader, turn_of
from avar_rl.evaluation.benchmarks.scoring.scored import scored_set
from avar_rl.evaluation.benchmarks.scoring.totals import figures
from avar_rl.runtime import tables
from avar_rl.runtime.files import write_json, write_whole
from data_tools.formats.sample import DataSample, SampleWriter, read_samples

WORDS = "the triangle angle is equal to side so we see that line has length x = 5 and area \\frac{1}{2} sum of".split()
OPTIONS = ("the red car", "a blue boat", "12 cm", "\\frac{3}{4}", "none of these", "green", "7", "two", "a dog", "left")
FREE = ("60", "3.5", "12", "\\frac{25}{7}", "1+\\sqrt{3}", "8\\pi", "(3,-4)", "69^\\circ", "0.21", "131253.5", "Tampa")
SAID = ("<answer>{}</answer>", "So it is \\boxed{{{}}}.", "The answer is {}.", "Answer: {}", "It must be {}.", "{}")


def question(benchmark: Benchmark, part: str, number: int, draw: random.Random) -> DataSample:
    """A made-up question with the columns that its rules and figures need."""
    place = str(number // 3), str(number % 3)
    extra: dict[str, Any] = {
        "part": part,
        "id": f"{number}",
        "category": draw.choice(("VD", "VS")),
        "subcategory": draw.choice(("chart", "map", "table")),
        "l2_category": f"category {number % 18}",
        "subject": f"subject {number % 16}",
        "level": number % 5 + 1,
        "set_id": place[0],
        "figure_id": place[1],
        "question_id": str(number % 2),
        "visual_input": "1",
    }
    id_, asked = f"{benchmark.name}/{part}/{number}", "What is shown?"
    if benchmark.name == "hallusionbench":
        gold = draw.choice("01")
        extra |= {"gt_answer": gold, "answer": gold}
        return DataSample(id_, "made up", asked, {"0": "no", "1": "yes"}[gold], "words", extra=extra)
    if benchmark.name in ("mmstar", "mmmu_pro") or draw.random() < 0.55:
        options = tuple(draw.sample(OPTIONS, 10 if benchmark.name == "mmmu_pro" else 4))
        gold = draw.choice("ABCD")
        kind = {"mathvista": "multi_choice", "mmmu": "multiple-choice"}.get(benchmark.name, "multi-choice")
        answer = options["ABCD".index(gold)] if benchmark.name == "mathvista" else gold
        extra |= {"question_type": kind, "answer_type": "text", "answer": answer}
        return DataSample(id_, "made up", asked, gold, "choice", options=options, extra=extra)
    gold = draw.choice(FREE[:3] if benchmark.name == "mathvista" else FREE)
    extra |= {"question_type": "free-form", "answer_type": "float", "precision": 1.0, "answer": gold}
    return DataSample(id_, "made up", asked, gold, "expression", extra=extra)


def response(sample: DataSample, words: int, draw: random.Random) -> str:
    """A response of so many words: right in about half of all cases, wrong, or cut off within its thought."""
    thought = " ".join(draw.choices(WORDS, k=draw.randint(words // 2, words * 3 // 2)))
    if draw.random() < 0.03:
        return f"<think>{thought}"
    answer = sample.gold if draw.random() < 0.5 else draw.choice("ABCD" if sample.options else FREE)
    return f"<think>{thought}</think>\n{draw.choice(SAID).format(answer)}"


def make(benchmark: Benchmark, folder: Path, words: int, samples: int) -> None:
    """Writes questions and responses of a benchmark as an evaluation leaves them."""
    draw = random.Random(benchmark.name)
    asked = [question(benchmark, part.name, n, draw) for part in benchmark.parts for n in range(part.n)]
    with SampleWriter(samples_path(folder, benchmark.name)) as writer:
        for sample in asked:
            writer.add(sample)
    lines = []
    for sample in asked:
        for number in (None, *range(samples)):
            text = response(sample, words, draw)
            record = {"id": sample.id, "sample": number, "response": text, "tokens": len(text) // 4, "prefill": ""}
            lines.append(record | {"truncated": not text.count("</think>")})
    write_whole(responses_path(folder, benchmark.name), "".join(json.dumps(line) + "\n" for line in lines))
    write_json(origin_path(folder, benchmark.name), {"limit": None})


def seconds(benchmark: Benchmark, folder: Path) -> list[float]:
    """Of reading what is stored, of either column, and of the figures."""
    times = [time.perf_counter()]

    def lap() -> None:
        times.append(time.perf_counter())

    samples = {one.id: one for one in read_samples(samples_path(folder, benchmark.name), with_images=False)}
    records = read_records(folder, benchmark.name)
    lap()
    official = [by_official_rules(benchmark.name, samples[record["id"]], turn_of(record)) for record in records]
    lap()
    ours = [by_our_grader(samples[record["id"]], turn_of(record)) for record in records]
    lap()
    scored = [
        {"id": record["id"], "sample": record["sample"], "judge": None, "ours": asdict(grade)}
        | {"official": asdict(reading) | {"parsed": reading.parsed}}
        for record, reading, grade in zip(records, official, ours, strict=True)
    ]
    figures(scored_set(benchmark, list(samples.values()), scored), records, {"limit": None})
    lap()
    return [after - before for before, after in pairwise(times)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=400, help="mean words of a response's thought (default 400)")
    parser.add_argument("--samples", type=int, default=0, help="samples beside each greedy response (default 0)")
    options = parser.parse_args()
    columns = ("responses", "MB", "read", "official", "ours", "figures", "seconds")
    table, total = tables.table(("benchmark", *columns), text=("benchmark",)), 0.0
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        for benchmark in chosen([ALL]):
            make(benchmark, folder, options.words, options.samples)
            spent = seconds(benchmark, folder)
            total += sum(spent)
            size = responses_path(folder, benchmark.name).stat().st_size / 1e6
            n = benchmark.n * (1 + options.samples)
            table.add_row(benchmark.name, f"{n:,}", f"{size:.1f}", *(f"{s:.2f}" for s in (*spent, sum(spent))))
    tables.console().print(table)
    print(f"{total:.1f} s in all")


if __name__ == "__main__":
    main()
