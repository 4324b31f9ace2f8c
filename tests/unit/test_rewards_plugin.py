"""Plug-ins: one file, one name; every mistake of theirs one sentence."""

import shutil
import subprocess
import sys

import pytest

from rewards import plugin
from rewards.plugin import declared_in, find, names_in, reward, shipped
from rewards.sample import AttentionSample, Sample


def written(folder, text: str, name: str = "mine.py") -> str:
    path = folder / name
    path.write_text(f"from rewards.plugin import reward\nfrom rewards.sample import AttentionSample, Sample\n{text}")
    return str(path)


BRIEF = """
@reward
def brief(sample: Sample, *, words: int = 50) -> float:
    return float(len(sample.response.split()) <= words)
"""


def test_a_file_dropped_into_the_folder_is_found_by_its_name(tmp_path):
    shutil.copytree(plugin.FOLDER, tmp_path / "rewards")
    written(tmp_path / "rewards", BRIEF, "brief.py")
    written(tmp_path / "rewards", "1 / 0\n", "broken.py")  # another's fault is none of ours
    code = "from rewards.plugin import find, shipped; print(find('brief').place, 'brief' in shipped())"
    done = subprocess.run(  # `rewards` of the current folder, the rest of the project
        [sys.executable, "-c", code],
        cwd=tmp_path, env={"PYTHONPATH": str(plugin.FOLDER.parent)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == [f"{tmp_path}/rewards/brief.py:4", "True"], done.stderr


def test_a_file_anywhere_is_found_by_path(tmp_path):
    path = written(tmp_path, BRIEF + "\n@reward\nasync def other(sample: AttentionSample) -> float: ...\n")
    assert find("brief", path).name == "brief"
    other = find("other", path)  # several in one file
    assert other.after_forward and other.needs == {"masses"} and other.is_async
    assert names_in(path) == ["brief", "other"]


def test_a_file_that_is_named_alone_must_declare_a_reward(tmp_path):
    with pytest.raises(ValueError, match="mine.py declares no reward with @reward"):
        names_in(written(tmp_path, "x = 1\n"))
    with pytest.raises(ValueError, match="reward file .*none.py: no such file"):
        names_in(str(tmp_path / "none.py"))


def test_names_are_read_from_the_source_of_any_file(tmp_path):
    path = tmp_path / "odd.py"
    path.write_text("NAME = 'x'\n@reward(name=NAME)\ndef one(s): ...\n@plugin.reward(name='two')\ndef f(s): ...\n")
    assert declared_in(path) == {"two"}
    path.write_bytes(b"\xff\xfe")
    assert declared_in(path) == set()


def test_what_is_shipped():
    during = {"accuracy", "format", "length", "repetition", "judge"}  # the rollout
    after = {"visual", "dependence", "evidence", "late_attention"}
    assert set(shipped()) >= during | after
    found = {name: find(name) for name in shipped()}
    assert after <= {name for name, item in found.items() if item.after_forward} <= set(found) - during
    assert found["visual"].gate == "accuracy" and found["judge"].is_async


def test_the_sample_decides_and_is_required():
    with pytest.raises(TypeError, match="first parameter must be annotated Sample or AttentionSample"):

        @reward
        def unannotated(sample):
            return 1.0

    with pytest.raises(TypeError, match="words of a reward must be keyword-only"):

        @reward
        def positional(sample: Sample, words: int = 3):
            return 1.0

    with pytest.raises(TypeError, match="stands on a function"):
        reward(type("Mine", (), {}))

    with pytest.raises(TypeError, match="cannot be called 'score'"):  # verl's own key

        @reward
        def score(sample: Sample):
            return 1.0


def test_a_decorated_function_can_still_be_called():
    @reward(name="named", gate="accuracy")
    def function(sample: AttentionSample) -> float:
        return 2.0

    assert function(AttentionSample("q", "r", "g")) == 2.0


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("brief", "x = 1\n", "declares no reward called brief with @reward; it declares none"),
        ("breif", BRIEF, "declares no reward called breif with @reward; it declares brief"),
        ("brief", BRIEF + BRIEF, "two rewards are called brief: .*mine.py:4 and .*mine.py:8"),
        ("brief", "import a_module_that_is_not_there\n", "mine.py cannot be imported: ModuleNotFoundError: No module"),
        ("brief", "def broken(:\n", "mine.py cannot be imported: SyntaxError"),
        (
            "format",
            "@reward\ndef format(sample: Sample): ...\n",
            "two rewards are called format: .*format.py and .*mine",
        ),
    ],
)
def test_mistakes_in_a_file(name, text, expected, tmp_path):
    with pytest.raises(ValueError, match=expected):
        find(name, written(tmp_path, text))


def test_unknown_names_get_candidates():
    with pytest.raises(ValueError, match="unknown reward acuracy; did you mean accuracy"):
        find("acuracy")
    with pytest.raises(ValueError, match="unknown reward beauty; rewards/ has accuracy, dependence, "):
        find("beauty")
    with pytest.raises(ValueError, match=r"avar.rewards.mine.path=/nowhere.py: no such file"):
        find("mine", "/nowhere.py")


def test_a_module_of_the_package_that_is_no_reward_has_no_name():
    with pytest.raises(ValueError, match="declares no reward called sample"):
        find("sample")


def test_options_are_checked_against_the_function(tmp_path):
    brief = find("brief", written(tmp_path, BRIEF))
    assert brief.checked_options({}) == {"words": 50} and brief.checked_options({"words": "7"}) == {"words": 7}
    with pytest.raises(
        ValueError, match=r"unknown key avar.rewards.brief.word; brief \(.*mine.py:4\) takes words, beside weight"
    ):
        brief.checked_options({"word": 3})
    with pytest.raises(ValueError, match=r"avar.rewards.brief.words: .*integer.*, not 'few'"):
        brief.checked_options({"words": "few"})
    with pytest.raises(ValueError, match="missing key avar.rewards.judge.model"):
        find("judge").checked_options({"base_url": "http://x"})
    with pytest.raises(ValueError, match="'ratio', 'share' or 'rank', not 'loud'"):
        find("visual").checked_options({"mode": "loud"})
    for option in ({"eps": 0}, {"clip": -1}, {"clip": "high"}):
        with pytest.raises(ValueError, match=f"avar.rewards.visual.{next(iter(option))}"):
            find("visual").checked_options(option)
