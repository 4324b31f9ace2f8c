"""The parts of the GPU check, one a test: the same code, limits and goals as `python -m benchmarks.gpu_check`."""

import pytest

from benchmarks.gpu_check import results
from benchmarks.gpu_check.parts import PARTS, run_apart

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """One folder for all parts: the model is made once."""
    return results.Setting("cuda", tmp_path_factory.mktemp("gpu_check"))


@pytest.mark.parametrize("part", [pytest.param(part, id=part.module) for part in PARTS])
def test_a_part_meets_its_goals(part, setting):
    file = setting.work / "results.json"
    found = results.read(file) if file.exists() else results.empty()
    results.begin(found, part.number, title=part.title)
    results.write(file, found)
    run_apart(part, file, setting, factor=1.0)
    mine = results.read(file)["parts"][part.number]
    assert mine["status"] == results.DONE, mine.get("error")
    assert mine["goals"] and not [goal for goal in mine["goals"] if goal["met"] == results.MISSED]
