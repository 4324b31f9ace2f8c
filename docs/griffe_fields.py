"""An extension of griffe, which reads the API from source: the fields of a class are a list in its description.

They are explained line by line in the class's docstring, or in a comment behind each field:

    question: the text of the user's turns.                alpha: float = 0.15  # weight of L_enh
"""

from __future__ import annotations

import re
from typing import Any

import griffe


class FieldsAsList(griffe.Extension):
    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        if cls.docstring is None:
            return
        text = listed(cls.docstring.value, set(cls.members))
        comments = [
            f"- `{name}`: {comment}."
            for name, member in cls.members.items()
            if member.is_attribute and (comment := comment_of(member))
        ]
        cls.docstring.value = "\n".join([text, *([""] if comments else []), *comments])


def listed(text: str, fields: set[str]) -> str:
    """`text` with each line `field: …` or `field, field: …` as a point of a list."""
    shown: list[str] = []
    for line in text.splitlines():
        names, colon, rest = line.partition(": ")
        if colon and all(name in fields for name in names.split(", ")):
            line = f"- {', '.join(f'`{name}`' for name in names.split(', '))}: {rest}"
        elif shown and shown[-1].startswith(("- `", "  ")) and line and not line.startswith(" "):
            line = f"  {line}"  # a field's text goes on
        shown.append(line)
    return "\n".join(shown)


def comment_of(field: griffe.Object | griffe.Alias) -> str:
    """What a comment at the end of the field's source line says."""
    found = re.search(r"  # (.+)$", field.source.rstrip())
    return found[1].rstrip(".") if found and not found[1].startswith(("pyright:", "noqa", "type:")) else ""
