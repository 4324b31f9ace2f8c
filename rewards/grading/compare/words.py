"""Are two answers in words the same? Without case, articles, punctuation and plural, as the policy says."""

import re

from rewards.grading.compare.policy import Policy
from rewards.grading.text import compound
from rewards.grading.text.words import items, plain, spelled_number, words_equation

_ARTICLES = frozenset({"a", "an", "the"})
_INTRODUCED = r"it is|it's|they are|there (?:is|are)|this is|i think|we get|i believe"
_CHINESE = r"[这它那]?(?:应该)?是(?=.)|1 (?=[\u4e00-\u9fff]{2})"  # 是红色, 一个直角三角形
_FILLERS = re.compile(rf"^(?:{_INTRODUCED})\s+|^(?:{_CHINESE})", re.IGNORECASE)


def same_words(a: str, b: str, policy: Policy) -> bool:
    """Do two texts say the same words in the same order? What introduces an answer ("it is") does not count.

    The sides of an equation between words have no order.
    """
    if (left := words_equation(a)) and (right := words_equation(b)):
        return same_items(list(left), list(right), policy)
    words = [_reduced(_FILLERS.sub("", text), policy) for text in (a, b)]
    return bool(words[0]) and words[0] == words[1]


def same_items(a: list[str], b: list[str], policy: Policy) -> bool:
    """Do two lists hold the same texts, each as often, in any order?"""
    return sorted(_reduced(item, policy) for item in a) == sorted(_reduced(item, policy) for item in b)


_BEFORE_LAST = frozenset("to in on at by called named".split())
_BESIDE = frozenset("than like unlike from near of next beside behind between before after close opposite".split())


def ends_in(sentence: str, words: str, policy: Policy) -> bool:
    """Does a sentence end in these words, after a verb or a place: "The tallest bar belongs to Norway"?

    Not where it denies or doubts, or where it may only name them beside the answer ("is next to Norway").
    """
    said, end = _reduced(sentence, policy), _reduced(words, policy)
    before = said[: -len(end)]
    if not end or len(before) < 3 or said[-len(end) :] != end or compound.says_more(sentence):
        return False
    if not _BESIDE.isdisjoint(before[-3:]):
        return False
    return before[-1] in _BEFORE_LAST or (before[-1].endswith("ing") and before[-2] in ("is", "are", "was", "were"))


_ORDER = re.compile(r"\border(?:ed|ing)?\b|\brank(?:ed|ing)?\b|\bfrom\b.*\bto\b|顺序|排[列序]|从.*到", re.IGNORECASE)


def out_of_order(sentence: str, said: str, gold: str, policy: Policy) -> bool:
    """Does a sentence say that it gives an order, and list, as `said`, another one than the gold?"""
    listed, wanted = items(said), items(gold)
    pairs = zip(listed, wanted, strict=False)
    return bool(_ORDER.search(sentence)) and any(not same_words(one, other, policy) for one, other in pairs)


def _reduced(text: str, policy: Policy) -> list[str]:
    words = [word.removesuffix("'s") for word in plain(text).split()]
    if policy.ignore_articles and len(words) > 1:
        words = [word for word in words if word not in _ARTICLES]
    if policy.number_words:
        words = [spelled_number(word) or word for word in words]
    return [_singular(word) for word in words] if policy.ignore_plural else words


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and re.search(r"(?:ch|sh|x|ss|z)es$", word):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
