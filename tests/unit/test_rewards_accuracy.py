"""rewards.accuracy: extraction, equality in both polarities, unscorable golds, and hostile text."""

import asyncio
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from rewards import _symbolic
from rewards.accuracy import accuracy, check_gold, extract_answer, timeouts


def graded(answer: str, gold: str) -> float:
    return accuracy(f"<think>so</think><answer>{answer}</answer>", gold)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("<think>a</think><answer>6</answer>", "6"),
        ("<answer> 1 \n</answer> no, <answer>\n2\n</answer>", "2"),  # the last one, over several lines
        ("<answer>1<answer>2</answer>", "2"),  # the last opening tag
        (r"so \boxed{1} then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),  # balanced braces
        (r"\boxed{1} <answer>2</answer>", "2"),  # the tag wins
        (r"<answer>3 \boxed{1}", "1"),  # an answer that never closes is none
        ("<answer></answer>", ""),
        ("the answer is 6", None),
        (r"\boxed{\frac{1}{2}", None),  # cut off
        ("</answer>6<answer>", None),
    ],
)
def test_extract_answer(response, expected):
    assert extract_answer(response) == expected


EQUAL = [
    ("6", "6"),
    (" 6. ", "6"),
    ("$6$", "6"),
    ("006", "6"),
    ("1,000", "1000"),
    ("0.5", r"\frac{1}{2}"),
    ("1/2", r"\dfrac{1}{2}"),
    ("2/4", r"\frac12"),
    ("-1/2", r"-\frac{1}{2}"),
    ("3 1/2", "3.5"),
    ("0.333333", r"\frac{1}{3}"),
    ("50%", "0.5"),
    ("50", r"50\%"),
    ("7 cm", "7"),
    ("12", "12 apples"),
    ("30°", r"30^\circ"),
    (r"2\pi", r"2\pi"),
    ("2π", r"2\pi"),
    ("2*pi", r"2\pi"),
    (r"\pi\cdot 2", r"2\pi"),
    ("sqrt(8)", r"2\sqrt{2}"),
    ("x**2 + 2x + 1", "(x+1)^2"),
    ("x = 5", "5"),
    ("{1, 2}", r"\{2, 1\}"),
    (r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ("B", "b"),
    ("(B)", "B"),
    ("B) red", "B"),
    ("B. red", "(B)"),
    ("Yes.", "yes"),
    (r"\text{blue square}", "Blue  square"),
    (r"\boxed{6}", "6"),
]
DIFFERENT = [
    ("5", "6"),
    ("", "6"),
    ("66", "6"),
    ("10000001", "10000000"),  # integers are compared exactly
    ("0.33", r"\frac{1}{3}"),
    ("1/0", "1"),
    ("-6", "6"),
    ("50%", "0.05"),
    ("7 cm", "7 m"),
    ("12 pears", "12 apples"),
    ("2", r"2\pi"),
    (r"3\pi", r"2\pi"),
    ("3.1416", r"\pi"),
    ("2x", "2"),
    ("x^2+1", "(x+1)^2"),
    ("A", "B"),
    ("A) B", "B"),
    ("AB", "B"),
    ("no", "yes"),
    ("yes or no", "yes"),
    ("six", "6"),
    ("6 or 7", "6"),
]


@pytest.mark.parametrize(("answer", "gold"), EQUAL)
def test_equal_answers(answer, gold):
    assert graded(answer, gold) == 1.0


@pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
def test_different_answers(answer, gold):
    assert graded(answer, gold) == 0.0


def test_no_answer_scores_zero_and_not_an_error():
    assert accuracy("I see a circle", "6") == 0.0


@pytest.mark.parametrize("gold", ["6", "-3.5", r"\frac{3}{16}", r"2\pi", "C", "yes", "blue square", "x=3", "12 apples"])
def test_scorable_golds(gold):
    check_gold(gold)


@pytest.mark.parametrize("gold", ["", "  ", "$$", r"\frac{1}{", "(((", "__import__('os')", "9^9^9^9", "7" * 1001, None])
def test_unscorable_golds_raise_and_are_named(gold):
    with pytest.raises(ValueError, match="gold answer") as caught:
        check_gold(gold)
    assert repr(gold) in str(caught.value)
    with pytest.raises(ValueError, match="gold answer"):
        accuracy("<answer>1</answer>", gold)


HOSTILE = [
    "9**9**9**9",
    "9^{9^{9^{9}}}",
    "2^{99999999}",
    "99999999!",
    "((9!)!)!",
    "(" * 500 + "1" + ")" * 500,
    r"\frac{" * 100 + "1" + "}{2}" * 100,
    r"\sqrt{" * 11 + "2" + "}" * 11,
    "1" * 5000,
    "__import__('os').system('touch {canary}')",
    "().__class__.__bases__[0].__subclasses__()",
    "exec(\"open('{canary}','w')\")",
    r"\text{open('{canary}','w')}",
    "lambda: 0",
    "\x00\ud800",
    "x" * 199,
    "1/0",
    r"\infty - \infty",
]


@pytest.mark.parametrize("gold", ["6", r"2\pi", "x + 1"])
def test_hostile_answers_are_wrong_quickly_and_run_nothing(gold, tmp_path):
    canary = tmp_path / "canary"
    before = timeouts()
    for answer in HOSTILE:
        assert graded(answer.replace("{canary}", str(canary)), gold) == 0.0
    assert timeouts() == before  # refused or answered, none ran into the limit
    assert not canary.exists()


def test_what_reaches_the_parser_is_never_evaluated():
    from rewards._symbolic_worker import _number_or_name

    assert str(_number_or_name("12 ")) == "12" and str(_number_or_name("yotta")) == "yotta"
    for text in ("1+1", "f(1)", "a.b", "__x__", "[1]"):
        with pytest.raises(ValueError, match="never evaluated"):
            _number_or_name(text)


# Small enough for the allow-list, yet expanding it takes sympy far longer than a second.
SLOW = r"\sin(x)^{99}\cos(x)^{99}+(x+1)^{300}"


def test_a_comparison_over_the_limit_scores_zero_is_logged_counted_and_the_next_one_works(caplog):
    before = timeouts()
    with caplog.at_level(logging.WARNING, logger="rewards._symbolic"):
        assert accuracy(f"<answer>{SLOW}</answer>", r"\tan x", limit_s=0.5) == 0.0
    assert timeouts() == before + 1
    assert "took over 0.5 s" in caplog.text
    assert graded(r"\sqrt{18}", r"3\sqrt{2}") == 1.0  # a fresh process


def test_a_killed_grading_process_is_replaced_and_the_pair_asked_again():
    assert graded(r"\sqrt{50}", r"5\sqrt{2}") == 1.0
    killed = _symbolic._worker._process
    killed.kill()
    assert graded(r"\sqrt{98}", r"7\sqrt{2}") == 1.0
    assert _symbolic._worker._process is not killed


def test_threads_and_event_loops_get_the_same_verdicts():
    pairs = [(rf"\sqrt{{{4 * n}}}", rf"{2 if n % 2 else 3}\sqrt{{{n}}}") for n in (2, 3, 5, 6, 7, 10)]
    expected = [1.0 if n % 2 else 0.0 for n in (2, 3, 5, 6, 7, 10)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda pair: graded(*pair), pairs)) == expected

    async def in_loop() -> list[float]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(None, graded, *pair) for pair in pairs))

    assert asyncio.run(in_loop()) == expected


def test_a_forked_process_uses_its_own_grading_process():
    assert graded("2pi", r"2\pi") == 1.0
    mine = _symbolic._worker
    child = os.fork()
    if child == 0:
        ok = graded(r"\sqrt{200}", r"10\sqrt{2}") == 1.0 and _symbolic._worker is not mine
        _symbolic._worker.kill()
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert graded(r"\sqrt{300}", r"10\sqrt{3}") == 1.0 and _symbolic._worker is mine


def test_no_process_is_left_when_the_caller_ends():
    code = (
        "from rewards.accuracy import accuracy; from rewards import _symbolic;"
        r"accuracy('<answer>2pi</answer>', r'2\pi'); print(_symbolic._worker._process.pid)"
    )
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
