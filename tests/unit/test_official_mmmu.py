"""MMMU's rules by hand: letters, never a random one; words and numbers of open questions."""

import pytest

from avar_rl.evaluation.benchmarks.scoring.official.mmmu import key_responses, numbers, read
from tests.unit.benchmark_questions import asked

CHOICE = asked("B", options=("$6", "$7", "an old bus", "$9"), question_type="multiple-choice")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(B)", "B"),
        ("The answer is (B) $7.", "B"),
        ("(A) is wrong, so (B)", "B"),  # the last in brackets
        ("(B) is right and not A at all", "B"),  # brackets come before bare letters
        ("not A but B then", "B"),  # the last bare letter
        ("A dog and a cat are B", "B"),
        ("B is what I say, A no", "A"),
        ("I would say that it is an old bus", "C"),  # the text of an option, in more than 5 words
        ("I would say an Old Bus, or rather not $6 but $7", "B"),  # the last of them
        ("it is an old bus", None),  # 5 words: the official code draws a letter
        ("blue", None),
        ("b", None),
        ("<answer>B</answer>", None),  # the marks are taken off before a rule sees it
        ("", None),
        ("E", None),
    ],
)
def test_letters(text, answer):
    found = read(CHOICE, text)
    assert (found.answer, found.right, found.parsed) == (answer, answer == "B", answer is not None)


def test_ten_letters_only_as_far_as_there_are_options():
    two = asked("B", options=("yes", "no"), question_type="multiple-choice")
    assert read(two, "C").answer is None
    nine = asked("I", options=tuple("123456789"), question_type="multiple-choice")
    assert read(nine, "(I)").right


@pytest.mark.parametrize(
    ("gold", "text", "right"),
    [
        ("12.5", "12.5", True),
        ("12.5", "12.50", True),
        ("12.5", "12.504", True),  # to 2 decimals
        ("12.5", "12.51", False),
        ("1200", "The cost is $1,200", True),  # a number with its comma
        ("1,200", "1200", True),
        ("8", "So 3 + 5 = 8", True),  # "=" counts in the last line
        ("8", "3 + 5 = 8\nThat is all", False),  # and in no other
        ("-3", "x = -3", True),
        ("1.5e3", "1500", True),
        ("Tampa", "The city is Tampa.", True),  # a text within the answer
        ("Tampa", "tampa bay", True),
        ("Tampa", "It is not Tampa", True),  # the official rule's fault, kept
        ("Tampa", "Florida", False),
        ("e", "tree", False),  # a single character stands beside a space
        ("e", "e", True),  # alone it is read with a space beside it
        ("e", "letter e here", True),
    ],
)
def test_open(gold, text, right):
    assert read(asked(gold, question_type="open"), text).right is right


def test_any_of_several_golds():
    question = asked("Tampa", other_golds=("Florida",), question_type="open")
    assert read(question, "Florida").right and not read(question, "Georgia").right


def test_an_empty_answer_does_not_parse():
    assert not read(asked("5", question_type="open"), " \n").parsed


def test_key_responses():
    assert key_responses("We add. So the result is 5.") == ["5"]  # "is " leaves the shortest rest
    assert key_responses("it is red\nthe answer could be blue") == ["red", "blue"]
    assert key_responses("no idea") == ["no idea"]
    assert key_responses("that is .") == ["that is "]  # nothing follows "is "
    assert key_responses("so it is\nx = 4") == ["it is", "4"]


def test_numbers():
    assert numbers("1,234 and 5.6e3, .5 or -7") == ["1,234", "5.6e3", "234", "5", ".5", "-7"]
    assert numbers("12.34e5 12abc") == ["12.34e5", "12", "5"]  # a backtracking pattern's remains, as there
    assert numbers("1.2.3") == ["1.2", ".3"]
