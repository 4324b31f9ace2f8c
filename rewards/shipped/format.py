"""The format reward: does a response have the shape `<think>...</think><answer>...</answer>`, exactly once?

Where the chat template opens the thought (the prompt ends with `<think>`), that tag is the response's.
"""

import re

from rewards.plugin import reward
from rewards.sample import Sample

# DOTALL: thoughts run over several lines. Each tag once: a second one would leave open which answer counts.
_SHAPE = re.compile(r"\s*<think>(?P<think>.*?)</think>\s*<answer>(?P<answer>.*?)</answer>\s*", re.DOTALL)
_TAG = re.compile(r"</?(?:think|answer)>")


def format_reward(response: str, prefill: str = "") -> float:
    """1.0 where `response` is one non-empty thought followed by one non-empty answer and nothing else, else 0.0.

    Args:
        prefill: what the chat template has written of the turn. An opening <think> at its end counts as the response's,
            which must not repeat it; anything else, such as an empty thought that is closed again, is left alone.
    """
    if prefill.rstrip().endswith("<think>"):
        response = f"<think>{response}"
    if len(_TAG.findall(response)) != 4:
        return 0.0
    shape = _SHAPE.fullmatch(response)
    return float(shape is not None and all(part.strip() for part in shape.groups()))


@reward(name="format")
def sample_format(sample: Sample) -> float:
    """`format_reward` of the response, after what the chat template has written of its turn."""
    return format_reward(sample.response, sample.prefill)
