r"""The boxes of a response: the last one, several that are one list, one for each part, and those that say nothing."""

import re

from rewards.grading.text.normalise import closing

_BOX = re.compile(r"\\(?:boxed|fbox|framebox|beginboxed)\s*(?=\{)|\\boxed\s+(?=[^\s{$.,)'\"`])(?![A-Za-z]{2}|a\s)")
_BETWEEN = re.compile(r"(?:[\s,;$&\\]|\\q?quad|\\text\s*\{\s*+(?:(?:and|or)\s*+)?\}|and|or|\\[\[\]()])*")
_SAYS_NOTHING = re.compile(
    r"[\s{}.?_$-]*|\\?[ld]?ots|(?:your |the |final |my )*answers?(?: here)?|\.\.\.", re.IGNORECASE
)
_NAME = re.compile(r"([A-Za-z](?:_\{?\w{1,3}\}?)?)\s*=[$\\(\[\s]*+$")
_PART_NAMED = r"\b(?:part|question|problem)\s*\(?(?:[a-h]|[ivx]{1,4}|[1-9])\)?"
_PART_LETTER = r"(?<!\w)\(?([a-h]|[ivx]{1,4})\)"
_PART = re.compile(rf"(?:{_PART_NAMED}|{_PART_LETTER})\W*$", re.IGNORECASE)
_HEADING = re.compile(
    r"\bPart\s*\(?([a-h]|[ivx]{1,4}|[1-9])\b\)?|(?:^|\n)(?:[^\S\n]|[*#])*+\(([a-h]|[ivx]{1,4})\)(?=[\s*])",
    re.IGNORECASE,
)


def last_boxes(text: str) -> tuple[str | None, int]:
    r"""The content of the last box and where it ends; (None, the length of the text): it is cut off; (None, 0): none.

    Boxes with nothing but "," or "and", a name or the label of a part in between are one list, names included:
    `x=\boxed{2}, y=\boxed{7}` is `x=2, y=7`. So are the boxes of a text in parts that has one box in each.
    A box with nothing in it is none.
    """
    found = _boxes(text)
    if found is None:
        return None, len(text)
    if not found:
        return None, 0
    if (parts := _of_parts(text, found)) is not None:
        return parts, found[-1][1]
    group: list[tuple[str, str]] = []
    end = 0
    for start, after, content in found:
        between = text[end:start]
        name = _NAME.search(between)
        label = name or _PART.search(between)
        rest = between[: label.start()] if label else between
        rest = rest.replace(".", ",") if label else rest
        joins = group and _BETWEEN.fullmatch(rest) and (label or re.search(r"[,;]|and|or", rest))
        group = [*(group if joins else []), (name.group(1) if name else "", content)]
        end = after
    named = len(group) > 1 and all(name for name, _ in group)
    return ", ".join(f"{name}={content}" if named else content for name, content in group), end


def _boxes(text: str) -> list[tuple[int, int, str]] | None:
    """Start, end and content of each box that is not within another; None: one of them is cut off."""
    found: list[tuple[int, int, str]] = []
    end = 0
    for match in _BOX.finditer(text):
        if match.start() < end:
            continue  # a box within a box
        brace = match.end()
        if text[brace] == "{":
            close = closing(text, brace)
            if close is None:
                return None
            content = text[brace + 1 : close].strip()
        else:
            close = brace + len(re.split(r"[\s$]", text[brace:], maxsplit=1)[0]) - 1
            content = text[brace : close + 1]
        end = close + 1
        if not _SAYS_NOTHING.fullmatch(content):
            found.append((match.start(), end, content))
    return found


def _of_parts(text: str, boxes: list[tuple[int, int, str]]) -> str | None:
    """The boxes of `Part (a): … Part (b): …` as a list; None where the parts do not have one box each."""
    headings = list(_HEADING.finditer(text))
    labels = [(heading.group(1) or heading.group(2)).lower() for heading in headings]
    if not 2 <= len(headings) == len(boxes) or len(set(labels)) < len(labels):
        return None
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    for heading, end, (start, _, _) in zip(headings, ends, boxes, strict=True):
        if not heading.start() < start < end:
            return None
    return ", ".join(content for *_, content in boxes)
