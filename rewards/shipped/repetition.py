"""Repetition: the share of a response's word n-grams that repeat an earlier one, as a penalty (as in arXiv 2502.03373).

distinct n-grams / n-grams - 1
"""

from avar_rl.runtime.settings import Count
from rewards.plugin import reward
from rewards.sample import Sample


@reward
def repetition(sample: Sample, *, ngram: Count = 4) -> float:
    """0 where every n-gram is new, towards -1 the more of them are repeats; 0 where the response has none.

    Args:
        ngram: length of an n-gram in words; words are split at blanks and compared without case.
    """
    words = sample.response.lower().split()
    grams = [tuple(words[i : i + ngram]) for i in range(len(words) - ngram + 1)]
    return len(set(grams)) / len(grams) - 1.0 if grams else 0.0
