r"""Symbolic equality of two answers, with a hard time limit: math-verify in a process of its own that can be killed.

`signal`-based limits work only in a main thread, and reward workers are threads of asyncio or Ray processes. So one
worker process per caller's process answers questions in turn; waiting for one's turn and start-up do not count as
grading time. A worker over the limit is killed, and the next question starts a fresh one.

Only text on an allow-list of characters, commands and sizes is handed over: mathematics, no prose, no code.
"""

import atexit
import json
import logging
import os
import re
import select
import subprocess
import sys
import threading
import time
from functools import lru_cache
from pathlib import Path

logger = logging.getLogger(__name__)

START_LIMIT_S = 120.0  # importing sympy on a busy machine

MAX_LENGTH, MAX_DEPTH, MAX_DIGITS, MAX_EXPONENT_DIGITS = 200, 12, 15, 3
_CHARACTERS = re.compile(r"[A-Za-z0-9\s+\-*/^_=<>()\[\]{}|.,;:!%&\\']*")
_FUNCTIONS = "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log exp sqrt".split()
_GREEK = "pi alpha beta gamma delta theta lambda mu phi omega sigma rho".split()
_SYMBOLS = "frac cdot times div pm mp circ infty cup cap in le ge leq geq neq ne lt gt mathbb quad begin end".split()
_COMMANDS = frozenset([*_FUNCTIONS, *_GREEK, *_SYMBOLS])
_PLAIN_WORDS = "|".join(sorted([*_FUNCTIONS, *_GREEK], key=len, reverse=True))
_ENVIRONMENTS = re.compile(r"\\(?:begin|end)\{[pb]?matrix\}")


def to_latex(text: str) -> str:
    r"""Plain notation as LaTeX: `2*pi` → `2\cdot \pi `, `sqrt(2)` → `\sqrt{2}`, `x**10` → `x^{10}`; LaTeX unchanged."""
    text = text.replace("**", "^").replace("*", r"\cdot ")
    text = re.sub(rf"(?<![\\A-Za-z])({_PLAIN_WORDS})(?![A-Za-z])", r"\\\1 ", text)
    text = _braced(text, r"\\sqrt\s*(?=\()")
    text = _braced(text, r"\^\s*(?=\()")
    return re.sub(r"\^\s*(-?\d{2,})", r"^{\1}", text)


def _braced(text: str, opener: str) -> str:
    """`opener(...)` → `opener{...}`, with balanced parentheses; unbalanced text is left alone."""
    for match in reversed(list(re.finditer(opener, text))):
        depth = 0
        for end in range(match.end(), len(text)):
            depth += (text[end] == "(") - (text[end] == ")")
            if depth == 0:
                head = match.group().strip()
                text = f"{text[: match.start()]}{head}{{{text[match.end() + 1 : end]}}}{text[end + 1 :]}"
                break
    return text


def admissible(latex: str) -> bool:
    """Is this text small, harmless mathematics that the worker may see?"""
    if len(latex) > MAX_LENGTH or not _CHARACTERS.fullmatch(latex) or "__" in latex:
        return False
    bare = _ENVIRONMENTS.sub(" ", latex).replace(r"\\", " ")  # a matrix and its row ends
    if any(command not in _COMMANDS for command in re.findall(r"\\([A-Za-z]+)", bare)):
        return False
    if re.search(r"\\[^A-Za-z{}%\\]", bare) or re.search(rf"\d{{{MAX_DIGITS + 1},}}", bare):
        return False
    without_commands = re.sub(r"\\[A-Za-z]+", " ", bare)
    if re.search(r"[A-Za-z]{3,}", without_commands):  # prose or a name; two letters may be a product
        return False
    return _shallow(bare) and _tame_powers(bare)


def _shallow(latex: str) -> bool:
    depth = 0
    for character in latex:
        depth += (character in "([{") - (character in ")]}")
        if depth > MAX_DEPTH:
            return False
    return True


def _tame_powers(latex: str) -> bool:
    """No towers, no exponent of more than three digits, no factorial of more than that: 9^9^9, 2^{10000}, 99999!"""
    if re.search(rf"\d{{{MAX_EXPONENT_DIGITS + 1},}}\s*!|[)}}\]!]\s*!", latex):
        return False
    for match in re.finditer(r"\^\s*", latex):
        exponent, rest = _argument(latex[match.end() :])
        if "^" in exponent or re.match(r"\s*\^", rest) or re.search(rf"\d{{{MAX_EXPONENT_DIGITS + 1},}}", exponent):
            return False
    return True


def _argument(text: str) -> tuple[str, str]:
    """A command's argument at the head of `text`, a brace group or one token, and what follows."""
    if not text.startswith("{"):
        token = re.match(r"\\[A-Za-z]+|-?[\d.]+|.?", text, re.DOTALL).group()
        return token, text[len(token) :]
    depth = 0
    for end, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[: end + 1], text[end + 1 :]
    return text, ""


class GaveUpError(Exception):
    """A question to the worker went unanswered; the message says why."""


class _Worker:
    """A running `rewards._symbolic_worker`. Not thread-safe; the caller holds a lock."""

    def __init__(self) -> None:
        root = str(Path(__file__).parents[1])
        path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rewards._symbolic_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": path},
        )
        self.owner = os.getpid()  # after a fork the pipes are still the parent's
        self._received = b""
        if self._read_line(START_LIMIT_S) != '"ready"':
            self.kill()
            raise RuntimeError("the grading process did not start (see its error above): is math-verify installed?")

    def ask(self, gold: str, answer: str | None, limit_s: float) -> bool:
        """TimeoutError: over the limit. EOFError or BrokenPipeError: the process died."""
        self._process.stdin.write(json.dumps([gold, answer, limit_s]).encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(self._read_line(limit_s))

    def _read_line(self, limit_s: float) -> str:
        deadline = time.monotonic() + limit_s
        descriptor = self._process.stdout.fileno()
        poll = select.poll()  # select() fails beyond 1024 descriptors, which a Ray worker can have
        poll.register(descriptor, select.POLLIN)
        while b"\n" not in self._received:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not poll.poll(1000 * remaining):
                raise TimeoutError
            chunk = os.read(descriptor, 65536)
            if not chunk:
                raise EOFError
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        return line.decode()

    def kill(self) -> None:
        self._process.kill()
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


_lock = threading.Lock()
_worker: _Worker | None = None
_timeouts = 0


def timeouts() -> int:
    """How many comparisons of this process were given up: over the time limit, or fatal to the grading process."""
    return _timeouts


@lru_cache(maxsize=65536)  # a group of rollouts repeats its answers; and a pathological one costs its seconds once
def equal(gold: str, answer: str, limit_s: float) -> bool:
    """Are two admissible LaTeX expressions equal? One over `limit_s` is logged, counted and counts as not equal."""
    global _timeouts
    try:
        return _ask(gold, answer, limit_s)
    except GaveUpError as error:
        _timeouts += 1
        logger.warning("comparing %r with gold %r %s; it counts as not equal", answer, gold, error)
        return False


def parses(latex: str, limit_s: float) -> bool:
    """Does an admissible LaTeX expression parse? GaveUpError: not within `limit_s`."""
    return _ask(latex, None, limit_s)


def _ask(gold: str, answer: str | None, limit_s: float) -> bool:
    """Asks the worker, one caller at a time. One that died, whoever killed it, is replaced and asked again, once."""
    global _worker
    with _lock:
        for last_try in (False, True):
            if _worker is None or _worker.owner != os.getpid():
                _worker = _Worker()
            try:
                return _worker.ask(gold, answer, limit_s)
            except (TimeoutError, EOFError, BrokenPipeError) as error:
                _worker.kill()
                _worker = None
                if isinstance(error, TimeoutError):
                    raise GaveUpError(f"took over {limit_s} s") from error
                if last_try:
                    raise GaveUpError("ended the grading process twice") from error


@atexit.register
def _end_worker() -> None:
    if _worker is not None and _worker.owner == os.getpid():
        _worker.kill()
