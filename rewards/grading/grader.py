"""The grader: prediction and gold → Verdict, tier by tier from cheap to dear. Nothing is ever executed."""

import logging
import re
import threading
from collections.abc import Sequence
from functools import lru_cache

from rewards.grading.compare.comparison import Comparison
from rewards.grading.compare.policy import DEFAULT, Policy
from rewards.grading.compare.reshape import is_sequence
from rewards.grading.compare.scalars import computed
from rewards.grading.compare.words import ends_in, out_of_order, same_items, same_words
from rewards.grading.golds import MAX_SENTENCE, check_gold, is_prose, several
from rewards.grading.parse.tree import Node, TooBigError, is_scalar, number, symbols
from rewards.grading.quantity import Quantity, exact_number, is_spaced, quantity, spelled, written_once
from rewards.grading.sympy_pool import symbolic
from rewards.grading.text import chinese, choices, units, words
from rewards.grading.text.extract import stated_answer
from rewards.grading.text.narrow import is_statement, narrower
from rewards.grading.text.normalise import glyphs, normalise
from rewards.grading.text.unmarked import closing_sentence, concluded, last_expression, quoted
from rewards.grading.verdict import Verdict

logger = logging.getLogger(__name__)

MAX_TAIL = 4000  # characters at the end of a response in which an unmarked answer is looked for
MAX_CLOSING = 40  # words of a closing sentence in which a gold of words is looked for
_undecided = 0
_lock = threading.Lock()


def undecided() -> int:
    """How many pairs that this process graded were left undecided."""
    return _undecided


def grade(
    prediction: object,
    gold: str | Sequence[str],
    *,
    kind: str | None = None,
    options: Sequence[str] | None = None,
    policy: Policy = DEFAULT,
) -> Verdict:
    """Is the answer `prediction` equivalent to the answer `gold`?

    Callable from any thread or process. An undecided pair is logged and counted (`undecided()`).

    Args:
        prediction: the text of an answer, of any length and content; nothing that it says raises anything. What is no
            text (None, a number) is no answer.
        gold: the text of the right answer, or a list of several, each of which is right.
        kind: what the gold is (one of KINDS) where its text leaves it open: the gold `B` of a formula is "maths".
        options: the texts of a multiple choice, A first: a letter then equals its option's text.
        policy: what counts as equal where graders disagree.

    Raises:
        ValueError: `gold` is empty or cannot be read (see `check_gold`), `kind` is unknown, or `options` are no texts.
        RuntimeError: a symbolic pair, and the process with sympy does not start.
    """
    check_gold(gold, kind)
    _check_options(options)
    return _best([_grade_one(prediction, one, kind, options, policy) for one in several(gold)])


def _check_options(options: Sequence[str] | None) -> None:
    listed = isinstance(options, Sequence) and not isinstance(options, str)
    if options is not None and not (listed and all(isinstance(option, str) for option in options)):
        raise ValueError(f"options are {options!r:.300}; they must be a list of texts, A first")


def _best(verdicts: list[Verdict]) -> Verdict:
    """The verdict on several golds: right if one is right, undecided if one may be, else wrong."""
    return min(verdicts, key=lambda verdict: (True, None, False).index(verdict.equivalent))


def _grade_one(
    prediction: object, gold: str, kind: str | None, options: Sequence[str] | None, policy: Policy
) -> Verdict:
    global _undecided
    if not isinstance(prediction, str) or not prediction.strip():
        return Verdict(False, "empty", "", gold, "there is no prediction")
    verdict = _graded(prediction, gold, kind, tuple(options) if options else None, policy)
    if verdict.equivalent is None:
        with _lock:
            _undecided += 1
        logger.warning("undecided: prediction %.200r, gold %.200r: %s", prediction, gold, verdict.reason)
    return verdict


def grade_response(
    response: object,
    gold: str | Sequence[str],
    *,
    kind: str | None = None,
    options: Sequence[str] | None = None,
    policy: Policy = DEFAULT,
) -> Verdict:
    """`grade` for a full response of a model: finds the answer that it states and compares that.

    Without a stated answer its last formula or number counts, if the policy says so. Arguments and errors are those
    of `grade`, with the text of a response in place of a prediction.
    """
    check_gold(gold, kind)
    _check_options(options)
    return _best([_grade_stated(response, one, kind, options, policy) for one in several(gold)])


def _grade_stated(
    response: object, gold: str, kind: str | None, options: Sequence[str] | None, policy: Policy
) -> Verdict:
    answer = _answer_for(response, gold, kind, options, policy) if isinstance(response, str) else None
    if answer is None:
        return Verdict(False, "empty", "", gold, "the response states no answer")
    return _grade_one(answer, gold, kind, options, policy)


def _answer_for(
    response: str, gold: str, kind: str | None, options: Sequence[str] | None, policy: Policy
) -> str | None:
    """The stated answer; without one, by the gold's kind, a letter in the prose, an option's text in the closing
    sentence, or the last formula or number."""
    stated, text = stated_answer(response)
    if stated is not None or text is None or not policy.last_expression:
        return stated
    text = glyphs(text[-MAX_TAIL:])
    letter, _ = choices.split_choice(normalise(gold))
    if letter and kind in (None, "choice"):
        head, rest = choices.split_choice(normalise(text))
        picked = text.strip() if head and not choices.in_prose(rest) else choices.in_prose(text)
        return picked or choices.option_in(closing_sentence(text), options or ())
    gold = normalise(gold)
    if options and (option := choices.option_in(closing_sentence(text), options)):
        return option
    if choices.many(gold) and choices.many_in_prose(text):
        return text.strip()
    if words.is_yes_or_no(gold):
        return concluded(text) if words.yes_or_no(text) is None else text.strip()
    if words.is_words(gold) and exact_number(gold) is None:
        said = text.strip() if len(text.split()) < MAX_SENTENCE else closing_sentence(text)
        if len(said.split()) < MAX_CLOSING:
            return quoted(said) or said
    return last_expression(text, formula_wanted=exact_number(gold) is None)


@lru_cache(maxsize=65536)  # a group of rollouts repeats its answers; and a pathological one costs its seconds once
def _graded(prediction: str, gold: str, kind: str | None, options: tuple[str, ...] | None, policy: Policy) -> Verdict:
    if prediction.strip() == gold.strip():
        return Verdict(True, "text", gold.strip(), gold.strip())
    if len(prediction) > policy.max_length:
        return _long(prediction, gold, policy)
    gold = normalise(chinese.in_order(gold))
    answer = normalise(prediction)
    verdict = _decided(answer, gold, kind, options, policy)
    if verdict.tier != "unread" and not (verdict.equivalent is False and _may_be_prose(answer, gold)):
        return verdict
    for shorter in narrower(glyphs(prediction)):
        found = _decided(normalise(shorter), gold, kind, options, policy)
        if found.tier != "unread" and not _may_be_prose(normalise(shorter), gold):
            jumbled = found.tier == "words" and out_of_order(prediction, shorter, gold, policy)
            return Verdict(False, "words", shorter, gold, "the order is another") if jumbled else found
    return verdict


def _may_be_prose(answer: str, gold: str) -> bool:
    """Was prose read as a product of letters, `7 in all` as 7·i·n·a·l·l, though the gold has no letters?"""
    if not re.search(r"(?<![\\A-Za-z])(?!(?:or|and)\b)[A-Za-z]{2,3}(?![A-Za-z])", answer):
        return False
    of_answer, of_gold = quantity(answer), quantity(gold)
    return bool(of_answer and of_gold and symbols(of_answer.tree) and not symbols(of_gold.tree))


def _long(prediction: str, gold: str, policy: Policy) -> Verdict:
    """Beyond the limit on length only whole numbers are still compared, digit by digit."""
    digits = [re.sub(r"[,\s]|\.0*$", "", text).lstrip("0") for text in (prediction.strip(), gold.strip())]
    if digits[0] == digits[1] and digits[0].isascii() and digits[0].isdigit():
        return Verdict(True, "number", gold, gold)
    reason = f"the prediction is over {policy.max_length} characters long"
    return Verdict(False, "refused", prediction[:80] + "...", gold, reason)


def _decided(answer: str, gold: str, kind: str | None, options: tuple[str, ...] | None, policy: Policy) -> Verdict:
    if not answer:
        return Verdict(False, "unread", answer, gold, "nothing is left of the prediction")
    if answer == gold:
        return Verdict(True, "text", answer, gold)
    if kind in (None, "choice") and (verdict := _by_choice(answer, gold, kind, options, policy)):
        return verdict
    return _by_content(answer, gold, kind, policy)


def _by_content(answer: str, gold: str, kind: str | None, policy: Policy) -> Verdict:
    """The verdict where neither side is a letter of an option."""
    if kind != "maths" and (verdict := _by_words(answer, gold, kind, policy)):
        return verdict
    return _by_mathematics(answer, gold, policy)


def _by_choice(
    answer: str, gold: str, kind: str | None, options: tuple[str, ...] | None, policy: Policy
) -> Verdict | None:
    """The verdict where the gold is a letter, letters, or the text of an option; None: it is no choice."""
    letters = choices.many(gold)
    picked = choices.many(answer) or (choices.many_in_prose(answer) if letters else None)
    if letters and (kind == "choice" or len(letters) > 2 or "," in gold or picked):
        same = picked == letters if policy.choice_any_order else answer == gold
        if picked is not None or choices.split_choice(answer)[0]:
            return Verdict(same, "choice", answer, gold)
    letter, text = choices.split_choice(gold)
    if letter is None:
        return _by_option(answer, gold, options, policy)
    picked, said = choices.split_choice(answer)
    if picked is None and (option := _option(letter, text, options)):
        inner = _by_content(answer, normalise(option), None, policy)
        if inner.equivalent:
            return inner
    bare = re.fullmatch(r"[a-z]", gold) is not None
    if picked is None and not bare:
        picked = choices.in_prose(answer)
    if bare and kind is None and (picked is None or said):
        return None  # the gold may be a variable
    if picked is None:
        return Verdict(False, "unread", answer, gold, "the prediction names no option")
    return Verdict(picked == letter, "choice", picked, letter)


def _option(letter: str, text: str, options: tuple[str, ...] | None) -> str | None:
    index = choices.LETTERS.find(letter)
    return text or (options[index] if options and 0 <= index < len(options) else None)


def _by_option(answer: str, gold: str, options: tuple[str, ...] | None, policy: Policy) -> Verdict | None:
    """The verdict where the gold is an option's text and the prediction its letter; None: it is no letter."""
    picked, said = choices.split_choice(answer)
    if picked is None:
        return None
    chosen = _option(picked, said, options)
    if chosen is None or (said and not options and not words.is_words(said) and quantity(normalise(said)) is None):
        return None
    return _by_content(normalise(chosen), gold, None, policy)


def _by_words(answer: str, gold: str, kind: str | None, policy: Policy) -> Verdict | None:
    """The verdict where the gold is made of words; None: it is not."""
    if words.is_yes_or_no(gold):
        said = words.yes_or_no(answer)
        if said is None:
            return Verdict(False, "unread", answer, gold, "the prediction says neither yes nor no")
        return Verdict(said == words.yes_or_no(gold), "words", str(said), gold)
    if kind == "text" or words.is_words(gold):
        if same_words(answer, gold, policy):
            return Verdict(True, "words", words.plain(answer), words.plain(gold))
        if (items := words.items(gold)) and len(items) > 1 and (others := words.items(answer)):
            same = same_items(others, items, policy)
            tier = "unread" if not same and is_statement(answer) else "words"
            return Verdict(same, tier, words.plain(answer), words.plain(gold))
        if is_prose(gold, quantity(gold), kind):
            _, said = choices.split_choice(answer)
            same = bool(said) and (same_words(said, gold, policy) or ends_in(said, gold, policy))
            tier = "words" if same or not (is_statement(answer) or re.search(r"\banswer\b|\$|\\", answer)) else "unread"
            return Verdict(same, tier, words.plain(answer), words.plain(gold))
    return None


def _by_mathematics(answer: str, gold: str, policy: Policy) -> Verdict:
    of_gold = quantity(gold)
    if of_gold is None:
        same = re.sub(r"\s", "", answer) == re.sub(r"\s", "", gold)
        return Verdict(same, "text" if same else "unread", answer, gold, "" if same else "the gold is not mathematics")
    answer = written_once(answer)
    of_answer = None if is_spaced(answer) and not policy.thousands_space else quantity(answer)
    if of_answer is None or (not policy.number_words and spelled(answer)[0]):
        return Verdict(False, "unread", answer, gold, "the prediction is not mathematics")
    if _comma_is_point(of_answer.tree, of_gold.tree, answer, gold, policy):
        a, b = (quantity(re.sub(r"(?<=[0-9]),(?=[0-9])", ".", text)) for text in (answer, gold))
        of_answer, of_gold = (of_answer, of_gold) if a is None or b is None else (a, b)
    if (of_answer.product and symbols(of_gold.tree)) or (of_gold.product and symbols(of_answer.tree)):
        of_answer, of_gold = _as_product(of_answer), _as_product(of_gold)
    return _compared(of_answer, of_gold, policy)


def _as_product(side: Quantity) -> Quantity:
    """The reading of `3 s` as 3 times s."""
    return Quantity(side.product, None) if side.product else Quantity(side.tree, side.unit)


def _compared(answer: Quantity, gold: Quantity, policy: Policy) -> Verdict:
    a, b = answer.tree, gold.tree
    comparison = Comparison(policy, symbolic.TimeBudget(policy.limit_s).ask)
    shown = str(answer), str(gold)
    if answer.unit and gold.unit:
        if not units.agree(answer.unit, gold.unit):
            return Verdict(False, "structure", *shown, f"{answer.unit.text} is another unit than {gold.unit.text}")
        if policy.convert_units and answer.unit.factor != gold.unit.factor:
            a = Node("mul", (a, number(answer.unit.factor / gold.unit.factor)))
        elif answer.unit.factor != gold.unit.factor:
            return Verdict(False, "structure", *shown, "the units differ")
    elif (unit := answer.unit or gold.unit) and not _unit_optional(unit, policy):
        return Verdict(False, "structure", *shown, "one side has a unit")
    else:
        a, b = (_signed(side, tree) for side, tree in ((answer.unit, a), (gold.unit, b)))
    try:
        equivalent = comparison.same(a, b)
    except TooBigError as error:
        if not symbolic.admissible(b):
            return Verdict(None, "refused", *shown, f"the gold is {error}")
        return Verdict(False, "refused", *shown, f"the prediction is {error}")
    numbers = comparison.tier == "structure" and all(is_scalar(side) and computed(side) is not None for side in (a, b))
    tier = "number" if numbers else comparison.tier
    return Verdict(equivalent, tier, *shown, "sympy does not decide it" if equivalent is None else "")


def _unit_optional(unit: units.Unit, policy: Policy) -> bool:
    money = any(name in units.MONEY for name, _ in unit.dimension)
    return policy.currency_optional if money else policy.unit_optional


def _signed(unit: units.Unit | None, tree: Node) -> Node:
    """`28 percent` and `45 degrees` with the signs % and °, at each member of a list."""
    if unit and is_sequence(tree):
        return Node(tree.op, tuple(_signed(unit, member) for member in tree.args), tree.name)
    name = unit.dimension[0][0] if unit and len(unit.dimension) == 1 else ""
    if name == "rad":
        return Node("function", (tree,), "radians")
    return Node(name, (tree,)) if name in ("percent", "degree") else tree


def _comma_is_point(a: Node, b: Node, answer: str, gold: str, policy: Policy) -> bool:
    """Is a comma between digits a decimal point, as the other side is a single number: `1,5` against `1.5`?"""
    if not policy.decimal_comma:
        return False
    pattern = r"-?[0-9]+,[0-9]+"
    for text, tree, other, other_text in ((answer, a, b, gold), (gold, b, a, answer)):
        if (
            re.match(pattern + r"(?![0-9,])", text)
            and is_sequence(tree)
            and len(tree.args) == 2
            and not is_sequence(other)
        ):
            return re.search(pattern, other_text) is None
    return False
