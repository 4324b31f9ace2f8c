"""The process in which math-verify compares two LaTeX expressions: started, and killed when slow, by rewards._symbolic.

Protocol: one JSON line in, `[gold, answer, seconds]`, one JSON line out: are the two equal or, where the answer is
null, does the gold parse. A first line `"ready"` is written once everything is imported and warm, so that start-up
never counts as grading time.
"""

import json
import logging
import os
import re
import resource
import signal
import sys

MEMORY_LIMIT = 3 * 2**30  # bytes of address space: an expression that explodes fails instead of filling the machine


def _number_or_name(text: str, *_args, **_kwargs):
    """In place of sympy's `parse_expr`, which evaluates text as Python.

    latex2sympy passes each number through it, and sympy itself a few names of units; nothing else is let through.
    """
    from sympy import Float, Integer, Symbol

    if re.fullmatch(r"\s*\d+\s*", text):
        return Integer(int(text))
    if re.fullmatch(r"\s*\d*\.\d+\s*", text):
        return Float(text)
    if re.fullmatch(r"[A-Za-z]+", text):
        return Symbol(text)
    raise ValueError("text from a model or a dataset is never evaluated")


def compare(gold: str, answer: str | None) -> bool:
    """Are the two equal or, without an answer, does `gold` parse? Only math-verify's LaTeX grammar is used."""
    from math_verify import LatexExtractionConfig, parse, verify

    def tree(text: str) -> list:
        return parse(f"${text}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None)

    return bool(tree(gold)) if answer is None else verify(tree(gold), tree(answer), timeout_seconds=None)


def main() -> None:
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a stray print must not end up between the replies
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; this process ends when its stdin closes
    from sympy.parsing import sympy_parser

    # sympify, which latex2sympy calls with each number, imports it at every call
    sympy_parser.parse_expr = _number_or_name
    if not compare("(x+0.5)^2", r"x^2+x+\frac{1}{4}"):  # a warm-up, too
        raise RuntimeError("math-verify does not find (x + 0.5)^2 equal to x^2 + x + 1/4: is it the pinned version?")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    replies.write('"ready"\n')
    for line in sys.stdin:
        gold, answer, seconds = json.loads(line)
        # Second line of defence, should the parent be gone: SIGALRM's default action ends the process in any state.
        signal.setitimer(signal.ITIMER_REAL, 2 * seconds + 1)
        try:
            reply = compare(gold, answer)
        except (MemoryError, RecursionError):
            reply = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        replies.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    main()
