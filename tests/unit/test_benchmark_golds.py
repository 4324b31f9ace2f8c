"""The benchmarks' schemas with their traps: a question's own gold is right in both columns, another answer is not."""

import pytest

from avar_rl.evaluation.benchmarks.benchmark import ALL, chosen, copies_in, read
from avar_rl.evaluation.benchmarks.scoring.both_columns import score_all
from avar_rl.evaluation.benchmarks.scoring.scored import scored_set
from avar_rl.evaluation.benchmarks.scoring.totals import figures
from data_tools.miniature.benchmarks import write_benchmarks

ROWS = 12
# Golds that the official rules call wrong by their own text, as the official code does: MathVision's units and lost
# backslashes, of which this project's grader knows better
NOT_OFFICIALLY = ("{", "\f")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmarks")
    write_benchmarks(out, ROWS)
    return out


def responses(samples, answer_of) -> list[dict]:
    of_each = {sample.id: f"<think>I look.</think>\n<answer>{answer_of(sample)}</answer>" for sample in samples}
    return [
        {"id": id_, "sample": None, "response": text, "tokens": 9, "truncated": False} for id_, text in of_each.items()
    ]


@pytest.mark.parametrize("benchmark", chosen([ALL]), ids=lambda benchmark: benchmark.name)
def test_gold_and_nonsense(benchmark, folder):
    samples = read(benchmark, copies_in(folder, benchmark), limit=ROWS)
    by_id = {sample.id: sample for sample in samples}
    records = responses(samples, lambda sample: sample.gold)
    scored = score_all(benchmark.name, by_id, records)
    assert [by_id[line["id"]].gold for line in scored if line["ours"]["right"] is not True] == []
    wrong = [str(by_id[line["id"]].extra["answer"]) for line in scored if not line["official"]["right"]]
    assert all(any(mark in answer for mark in NOT_OFFICIALLY) for answer in wrong), wrong
    found = figures(scored_set(benchmark, samples, scored), records, {"limit": ROWS})
    assert found["columns"]["ours"]["accuracy"] == 1.0 and found["groups"].keys() == set(benchmark.groups)
    nonsense = score_all(benchmark.name, by_id, responses(samples, lambda sample: "qqq"))
    assert not any(line[column]["right"] for line in nonsense for column in ("official", "ours"))
