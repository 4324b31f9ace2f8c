"""How converters read golds, letters of options and places of images."""

import pytest

from data_tools.convert.pipeline import gold_kind
from data_tools.convert.sources.solidgeo import gold_of
from data_tools.convert.sources.source import letter_of, named_letter, place_images


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("53", "53"),
        (r"$\frac{\sqrt{6}}{6}$", r"\frac{\sqrt{6}}{6}"),
        (r"\lambda =\frac{1}{3}", r"\lambda =\frac{1}{3}"),  # an equation in a symbol: the grader's matter
        ("-1\n\n [Analysis] Opposite faces.", "-1"),
        (r"13 \# \# 13.0", "13"),
        ("解144\n\n【分析】…", "144"),
    ],
)
def test_solidgeo_golds(answer, gold):
    assert gold_of(answer) == gold


def test_letters_and_markers():
    options = ["C", "B", "A"]  # a text wins over a letter, except where a set is known to give letters
    assert [letter_of(answer, options) for answer in ("A", "(B)", "C.")] == ["C", "B", "C"]
    assert [named_letter(answer, options) for answer in ("A", "(B)", "C.")] == ["A", "B", "C"]
    for answer in ("D", "E", "yes"):
        with pytest.raises(ValueError, match="none of the options"):
            letter_of(answer, ["1", "2", "3"])
    assert place_images("See <image1> and <image2>.", r"<image\d>", 2) == "See <image> and <image>."
    assert place_images("See <image1>, <image1>.", r"<image\d>", 1) == "See , ."


@pytest.mark.parametrize(
    ("gold", "options", "kind"),
    [
        ("B", (), "choice"),
        ("(C)", (), "choice"),
        ("A", ("red", "blue"), "choice"),
        ("-3.5", (), "number"),
        ("1,200", (), "number"),
        ("1/2", (), "number"),
        ("50%", (), "number"),
        ("12 cm", (), "number"),
        (r"30^\circ", (), "number"),
        ("red", (), "words"),
        ("no solution", (), "words"),
        (r"2\pi", (), "expression"),
        ("3x", (), "expression"),
        ("x=2", (), "expression"),
    ],
)
def test_gold_kinds(gold, options, kind):
    assert gold_kind(gold, options) == kind
