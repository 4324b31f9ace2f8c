"""Values of a row as what they are: texts, lists of texts, options. What is none of these is refused, never written as
the text of its representation.

A text that is a list or a mapping written down, as JSON or as a Python literal, is read as that list or mapping. An
answer is only taken for one where all its entries are quoted: `[1, 2]` is an interval.
"""

from __future__ import annotations

import ast
import io
import itertools
import json
import math
import re
import tokenize
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from avar_rl.runtime.evidence import Evidence, read_evidence

MAX_LITERAL = 20_000  # characters of a list or mapping in a text
SHOWN = 80
# What the backslash of an undoubled LaTeX command becomes: \frac, \beta, \theta, \rho, \nabla
_LOST_BACKSLASH = re.compile(r"[\a\b\f\r\t\v]|\n(?:abla|eq|e|u|ot|mid|i)\b")

_ESCAPES = "\\'\"\nabfnrtvxuUN01234567"
_QUOTED_LIST = re.compile(r"""\s*\[\s*(['"]).*['"]\s*+(?:,\s*+)?\]\s*""", re.DOTALL)


def missing(value: Any) -> bool:
    """Whether a value stands for none: None, and the NaN that pandas writes for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def text_value(value: Any, column: str) -> str:
    """The text of a text, number or truth value, stripped; "" for None and NaN.

    Whole numbers have no point (a column of integers with a gap is one of floats), others no exponent.

    Raises:
        ValueError: anything else, an infinity, or a text that UTF-8 cannot encode; names the column.
    """
    if missing(value):
        return ""
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= mark <= "\udfff" for mark in value):
            raise ValueError(f"column {column} holds half a surrogate pair, which is no text")
        return value.strip()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() < 10_000:  # Python writes no integer of over 4,300 digits
        return str(value)
    if isinstance(value, float | Decimal):
        return _decimal(value if isinstance(value, Decimal) else Decimal(repr(value)), column)
    raise ValueError(f"column {column} is a {type(value).__name__}; it must be a text or a number")


def _decimal(value: Decimal, column: str) -> str:
    if not value.is_finite():
        raise ValueError(f"column {column} is {value}; it must be a finite number")
    if abs(value.adjusted()) > 400:
        raise ValueError(f"column {column} is {value:e}, a number with too many digits to be written out")
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def written(text: str) -> Any:
    """The list or mapping that `text` writes down as JSON or as a Python literal; None: it writes down neither.

    Raises:
        ValueError: one is written down, but cannot be read as it was meant; says why.
    """
    text = text.strip()
    if text[:1] + text[-1:] not in ("[]", "{}") or len(text) > MAX_LITERAL:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = _python_literal(text)
    if not isinstance(value, list | dict):
        return None
    if _LOST_BACKSLASH.search("\0".join(_texts(value))):
        raise ValueError(f"a backslash that is not doubled made a control character of a command in {text[:SHOWN]!r}")
    return value


def _python_literal(text: str) -> Any:
    """`text` as a Python literal, never executed; None: it is none.

    Raises:
        ValueError: two texts stand side by side, as in a print of a numpy array: Python would make them one.
    """
    # Python leaves the backslash of an escape that it does not know, but warns
    text = re.sub(r"\\(.)", lambda found: found[0] if found[1] in _ESCAPES else "\\" + found[0], text, flags=re.DOTALL)
    try:
        kinds = [t.type for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type != tokenize.NL]
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError, tokenize.TokenError):
        return None
    if any(pair == (tokenize.STRING, tokenize.STRING) for pair in itertools.pairwise(kinds)):
        raise ValueError(f"two texts have no comma between them in {text[:SHOWN]!r}")
    return value


def _texts(value: Any) -> list[str]:
    """All texts in nested lists and mappings, in no order; without recursion, as JSON may nest deeper than calls."""
    found, waiting = [], [value]
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, Mapping):
            waiting += [*entry.keys(), *entry.values()]
        elif isinstance(entry, list | tuple):
            waiting += entry
        elif isinstance(entry, str):
            found.append(entry)
    return found


def list_value(value: Any, column: str) -> list[Any]:
    """The entries of a list, also of one that a text writes down; none for None, NaN and an empty text, and any other
    value as the only entry.

    Raises:
        ValueError: a list in a text cannot be read; names the column.
    """
    if missing(value) or value == "":
        return []
    if isinstance(value, str):
        read = _written(value, column)
        value = read if isinstance(read, list) else value
    return list(value) if isinstance(value, list | tuple) else [value]


def _written(text: str, column: str) -> Any:
    try:
        return written(text)
    except ValueError as error:
        raise ValueError(f"column {column}: {error}") from error


def answers_value(value: Any, column: str) -> list[str]:
    """The texts of an answer, or of several: entries that say the same are one. [] where there is none.

    Raises:
        ValueError: it is neither a text, a number nor a list of these; names the column.
    """
    if isinstance(value, str) and "'" not in value and '"' not in value:
        entries: list[Any] = [value]
    elif isinstance(value, str):
        read = _written(value, column)
        if isinstance(read, dict):
            raise ValueError(f"column {column} is a mapping in a text, no answer: {value[:SHOWN]!r}")
        quoted = isinstance(read, list) and read and all(isinstance(entry, str) for entry in read)
        if not quoted and _QUOTED_LIST.fullmatch(value):
            raise ValueError(f"column {column} is a text like a list, but cannot be read as one: {value[:SHOWN]!r}")
        entries = read if quoted else [value]
    else:
        entries = list(value) if isinstance(value, list | tuple) else [value]
        while len(entries) == 1 and isinstance(entries[0], list | tuple):
            entries = list(entries[0])
    texts = [text_value(entry, column) for entry in entries]
    return [text for text in dict.fromkeys(texts) if text]


def options_value(value: Any, column: str) -> list[str]:
    """The texts of the options of a multiple choice, A first; [] where there are none.

    Read are a list; a mapping from letters, or from numbers that begin at 0 or 1, to texts; a mapping of two lists,
    `text` and `label`; and each of them written down in a text.

    Raises:
        ValueError: anything else, an option that is empty, or letters with a gap; names the column.
    """
    if missing(value) or (isinstance(value, str) and not value.strip()):
        return []
    if isinstance(value, str):
        read = _written(value, column)
        if read is None:
            raise ValueError(f"column {column} is a text that is no list of options: {value[:SHOWN]!r}")
        value = read
    if isinstance(value, Mapping):
        value = _labelled(value, column)
    if not isinstance(value, list | tuple):
        raise ValueError(f"column {column} is a {type(value).__name__}; it must be a list of options")
    texts = [text_value(entry, column) for entry in value]
    if "" in texts:
        raise ValueError(f"column {column}: option {texts.index('') + 1} of {len(texts)} is empty")
    return texts


def evidence_value(value: Any, column: str, images: int) -> Evidence:
    """The evidence boxes of a row of `images` images; () where there are none.

    Read is a list of boxes for each image, of a single image also its boxes alone or one box, and each of them written
    down in a text.

    Raises:
        EvidenceError: it is none of these; names the column.
        ValueError: a list in a text cannot be read; names the column.
    """
    boxes = list_value(value, column)
    if images == 1 and boxes and not isinstance(boxes[0], list | tuple):
        boxes = [boxes]
    if images == 1 and boxes and boxes[0] and not isinstance(boxes[0][0], list | tuple):
        boxes = [boxes]
    return read_evidence(boxes, column)


def _labelled(options: Mapping[Any, Any], column: str) -> list[Any]:
    """The options of a mapping in the order of their labels. Labels at the end may have none: a table gives all rows
    the same ones."""
    pairs = list(options.items())
    if set(options) == {"text", "label"}:
        texts, labels = list_value(options["text"], column), list_value(options["label"], column)
        if len(texts) != len(labels):
            raise ValueError(f"column {column} has {len(labels)} labels for {len(texts)} options")
        pairs = list(zip(labels, texts, strict=True))
    places = [_place(label) for label, _ in pairs]
    placed = sorted(zip(places, pairs, strict=True), key=lambda entry: entry[0])
    while placed and missing(placed[-1][1][1]):
        placed.pop()
    found, kinds = [n for (_, n), _ in placed], {kind for (kind, _), _ in placed}
    starts = {"letter": (0,), "number": (0, 1)}.get(kinds.pop() if len(kinds) == 1 else "", ())
    if placed and found not in [list(range(start, start + len(found))) for start in starts]:
        names = [text_value(label, f"{column}, its labels,")[:9] for label, _ in pairs]
        raise ValueError(f"column {column} has the labels {names}, not A, B, C, …")
    return [text for _, (_, text) in placed]


def _place(label: Any) -> tuple[str, int]:
    """The kind of a label, and its place: ("letter", 0) for A, `(a)` or `A.`, ("number", 7) for 7."""
    if isinstance(label, str) and (named := re.fullmatch(r"\s*\(?([A-Za-z]|[0-9]{1,2})\)?[.:]?\s*", label)):
        text = named.group(1).upper()
        return ("number", int(text)) if text.isdigit() else ("letter", ord(text) - ord("A"))
    if isinstance(label, int) and not isinstance(label, bool):
        return "number", label
    return "other", 0
