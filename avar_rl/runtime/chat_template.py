"""The system turn of a chat template: span masses need one, and not every model's template writes it by itself."""

from __future__ import annotations

import json
from typing import Any

SYSTEM_HEADER = "<|im_start|>system\n"


def writes_system_turn(processor: Any, **options: Any) -> bool:
    """Whether a processor's (or tokenizer's) chat template writes a system turn where a conversation has none.

    `options` are arguments of the template. Qwen2-VL's and Qwen2.5-VL's do, Qwen3-VL's does not.
    """
    turns = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
    return SYSTEM_HEADER in processor.apply_chat_template(turns, tokenize=False, **options)


def with_system_turn(template: str, text: str) -> str:
    """The chat template (Jinja), made to begin a conversation that has no system turn with one that says `text`.

    Conversations that begin with a system turn of their own are written as before.
    """
    turn = f"[{{'role': 'system', 'content': {json.dumps(text, ensure_ascii=False)}}}]"
    missing = "{%- if messages[0]['role'] != 'system' %}"
    return f"{missing}{{%- set messages = {turn} + messages %}}{{%- endif %}}{template}"
