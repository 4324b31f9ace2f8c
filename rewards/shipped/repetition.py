"""Repetition: the share of a response's word n-grams that it has said before, as a penalty (as in arXiv 2502.03373)."""

from typing import Annotated

from pydantic import Field

from rewards.plugin import reward
from rewards.sample import Sample


@reward
def repetition(sample: Sample, *, ngram: Annotated[int, Field(ge=1)] = 4) -> float:
    """0 where every n-gram is new, towards -1 the more of them are repeats; 0 for a response shorter than one."""
    words = sample.response.lower().split()
    grams = [tuple(words[i : i + ngram]) for i in range(len(words) - ngram + 1)]
    return len(set(grams)) / len(grams) - 1.0 if grams else 0.0
