"""Hostile text, and the pool of workers: limits, deaths, threads, event loops, forks, and what is left behind."""

import asyncio
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from rewards.grading import DEFAULT, grade, grade_response, undecided
from rewards.grading.sympy_pool import pool

HOSTILE = [
    "9**9**9**9",
    "3 or 9**9**9**9",
    "9**9**9**9 m",
    "9^{9^{9^{9}}}",
    "2^{99999999}",
    "99999999!",
    "((9!)!)!",
    r"\binom{10^9}{10^8}",
    r"e^{e^{e^{e^{e}}}}",
    r"\sin(10^{100000})",
    "(" * 500 + "1" + ")" * 500,
    "1" + "+1" * 390,
    r"\frac{" * 100 + "1" + "}{2}" * 100,
    r"\sqrt{" * 300 + "2" + "}" * 300,
    "[" * 1000,
    "|" * 2000,
    "{" * 10000,
    r"\boxed{" * 2000 + "}" * 2000,
    "1" * 100_000,
    "0." + "3" * 100_000,
    "word " * 20_000,
    "the answer is " * 7000,
    "$x$ " * 25_000,
    "__import__('os').system('touch {canary}')",
    "().__class__.__bases__[0].__subclasses__()",
    "exec(\"open('{canary}','w')\")",
    r"\text{open('{canary}','w')}",
    "lambda: 0",
    "\x00\ud800",
    "\u202e6\u202c\u0301",
    "nan",
    "None",
    "1/0",
    r"\infty - \infty",
    r"\frac{{{",
    r"\begin{pmatrix}" * 50,
]
# Small enough to be asked, yet sympy takes far longer than the limit.
SLOW = r"\int_0^1 x^{x^{x^x}} dx"
SYMBOLIC = r"\int_0^1 x^{%d} dx"


@pytest.mark.parametrize(
    "gold", ["7", r"2\pi", "x + 1", "B", "(1,2)", "yes", "x>3", "12 m", "9.9", r"\emptyset", "2 or 7"]
)
def test_hostile_answers_are_refused_without_sympy_and_run_nothing(gold, tmp_path):
    canary, before = tmp_path / "canary", undecided()
    for text in HOSTILE:
        text = text.replace("{canary}", str(canary))
        assert grade(text, gold).equivalent is False
        assert grade_response(text, gold).equivalent is False
    assert undecided() == before
    assert not canary.exists()


def test_a_question_over_the_limit_is_undecided_logged_and_counted_and_the_next_one_works(caplog):
    before = undecided()
    with caplog.at_level(logging.WARNING, logger="rewards.grading"):
        verdict = grade(SLOW, r"\frac{\pi}{7}", policy=replace(DEFAULT, limit_s=0.5))
    assert verdict.equivalent is None and verdict.tier == "symbolic"
    assert undecided() == before + 1
    assert "took over 0.45 s" in caplog.text and "undecided" in caplog.text
    assert patient(2, 3) is True


def patient(power: int, denominator: int) -> bool | None:
    """∫ x^power against 1/denominator; only sympy settles it."""
    verdict = grade(SYMBOLIC % power, rf"\frac{{1}}{{{denominator}}}", policy=replace(DEFAULT, limit_s=60))
    assert verdict.tier == "symbolic"
    return verdict.equivalent


def test_a_list_of_slow_members_shares_one_limit():
    policy = replace(DEFAULT, limit_s=0.5)
    members = ", ".join(rf"\int_0^{k} x^{{x^{{x^x}}}} dx" for k in range(1, 6))
    budget_spent = []
    original = pool.Pool.ask

    def recorded(self, task, a, b, limit_s):
        budget_spent.append(limit_s)
        return original(self, task, a, b, limit_s)

    pool.Pool.ask = recorded
    try:
        assert grade(members, r"\pi, 2\pi, 3\pi, 4\pi, 5\pi", policy=policy).equivalent is None
    finally:
        pool.Pool.ask = original
    assert len(budget_spent) == 1


def test_a_killed_worker_is_replaced_and_the_pair_asked_again():
    assert patient(3, 4) is True
    killed = {worker.process.pid for worker in pool.shared().workers}
    for worker in pool.shared().workers:
        worker.process.kill()
    assert patient(4, 5) is True
    assert not killed & {worker.process.pid for worker in pool.shared().workers}


def test_threads_and_event_loops_get_the_same_verdicts():
    pairs = [(n, n + 1 + n % 2) for n in range(5, 13)]
    expected = [n % 2 == 0 for n, _ in pairs]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda pair: patient(*pair), pairs)) == expected

    async def in_loop() -> list[bool | None]:
        return await asyncio.gather(*(asyncio.to_thread(patient, n + 8, m + 8) for n, m in pairs))

    assert asyncio.run(in_loop()) == expected
    assert len(pool.shared().workers) <= pool.SIZE


def test_a_forked_process_has_its_own_pool():
    assert patient(30, 31) is True
    mine = pool.shared()
    child = os.fork()
    if child == 0:
        ok = patient(31, 32) is True and pool.shared() is not mine
        pool.close()
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert patient(32, 33) is True and pool.shared() is mine


def test_no_process_is_left_when_the_caller_ends():
    code = (
        "from rewards.grading import grade, Policy; from rewards.grading.sympy_pool import pool;"
        r"grade(r'\int_0^1 x dx', '1/2', policy=Policy(limit_s=60));"
        "print(*(worker.process.pid for worker in pool.shared().workers))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for pid in map(int, found.stdout.split()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_sympy_gets_trees_and_its_parser_is_never_reached():
    """sympy's parser evaluates text. Once sympy has loaded itself with it, it is a number here: a call of it fails."""
    code = (
        "import sympy.parsing.sympy_parser as parser; from rewards.grading.sympy_pool import worker; worker._warm();"
        "parser.parse_expr = parser.eval_expr = 0; worker._warm();"
        "from rewards.grading.sympy_pool.to_sympy import TASKS; equal = TASKS['equal'];"
        "evil = ['symbol', '__import__(1)', []]; print(equal(evil, evil), equal(evil, ['number', '1', []]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout == "True False\n", found.stderr
