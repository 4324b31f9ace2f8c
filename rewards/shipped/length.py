"""Length shaping: DAPO's soft overlong punishment (arXiv 2503.14476, section 3.4).

0                                    up to max - buffer tokens
((max - buffer) - tokens) / buffer   from there to max: falls from 0 to -1
-1                                   beyond max
"""

from avar_rl.runtime.settings import Count
from rewards.plugin import reward
from rewards.sample import Sample


@reward
def length(sample: Sample, *, buffer: Count, max_tokens: Count | None = None) -> float:
    """From 0 for a response that is short enough to -1 for one that is too long.

    Args:
        buffer: length of the ramp in tokens.
        max_tokens: the length in tokens where the ramp ends; by default the limit at which responses are cut.

    Raises:
        ValueError: the response's length or the limit is not known, or `buffer` is no shorter than the limit.
    """
    limit = sample.max_response_tokens if max_tokens is None else max_tokens
    if limit is None or sample.response_tokens is None:
        raise ValueError("the reward `length` needs the response's length in tokens and a limit (max_tokens)")
    if buffer >= limit:
        raise ValueError(f"avar.rewards.length.buffer={buffer} leaves nothing of the limit of {limit} tokens")
    return -min(max(sample.response_tokens - (limit - buffer), 0), buffer) / buffer
