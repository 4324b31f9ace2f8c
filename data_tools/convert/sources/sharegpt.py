r"""LLaMA-Factory's sharegpt JSON with images, the format of `Antimage01/AVAR-ColdStart-30K`.

Schema: `conversations` [{from: human | gpt | system, value}] or `messages` [{role: user | assistant | system,
content}], images [paths], and perhaps `system`; `<image>` in a turn says where an image goes. One question and one
answer a row; more turns are rejected. The gold is the last `<answer></answer>` (or `\boxed{}`) of the answer, which
becomes `response`.
"""

from collections.abc import Mapping
from typing import Any

from data_tools.convert.sources.source import Draft, Row, Source, images_of, kept, optional_text
from data_tools.convert.sources.values import text_value

ROLES = {"human": "user", "gpt": "assistant"}


def turn_of(turn: Mapping[str, Any]) -> tuple[str, str]:
    """(role, text) of a turn in either spelling; the roles are user, assistant and system."""
    role = text_value(turn.get("from") or turn.get("role"), "from")
    column = "value" if turn.get("value") else "content"
    return ROLES.get(role, role), text_value(turn.get(column), column)


def draft(row: Row) -> Draft:
    """What a row of sharegpt data says; raises ValueError for one that cannot be used."""
    from rewards.grading import stated_answer

    listed_turns = row.get("conversations") or row.get("messages")
    if not (isinstance(listed_turns, list) and all(isinstance(turn, Mapping) for turn in listed_turns)):
        raise ValueError(f"neither conversations nor messages hold turns; the row has {', '.join(row)}")
    turns = [turn_of(turn) for turn in listed_turns]
    system = "\n".join(text for role, text in turns if role == "system") or optional_text(row, "system")
    turns = [(role, text) for role, text in turns if role != "system"]
    if [role for role, _ in turns] != ["user", "assistant"]:
        raise ValueError(f"not one question and one answer: the turns are {', '.join(role for role, _ in turns)}")
    (_, question), (_, response) = turns
    gold, _ = stated_answer(response)
    if not gold:
        raise ValueError(f"the answer holds no <answer></answer>: it ends in {response[-60:]!r}")
    extra = kept(row, "id") | ({"system": system} if system else {})
    return Draft(question, gold, images_of(row, "images"), response=response, extra=extra)


SOURCE = Source("sharegpt", ("images",), draft, hub="Antimage01/AVAR-ColdStart-30K")
