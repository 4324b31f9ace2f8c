"""Which training rows are chosen: pass rates, mixtures and curricula, against what is worked out by hand."""

from collections import Counter
from fractions import Fraction

import pytest

from data_tools.choice import Choice, RowFacts, Split, mixture, parse_mix, parse_range

F = Fraction
HARD = [RowFacts("a", rate) for rate in (0.0, 0.125, 0.5, 0.875, 1.0, None)]


def rows_of(**counts: int) -> list[RowFacts]:
    return [RowFacts(source) for source, count in counts.items() for _ in range(count)]


def of(rows, places) -> Counter:
    return Counter(rows[place].source for place in places)


def test_split_names():
    names = Split(val_rows=2, test_rows=3, seed=4).names(10)
    assert [names.count(name) for name in ("train", "val", "test")] == [5, 2, 3]
    assert names == Split(2, 3, 4).names(10) != Split(2, 3, 5).names(10)
    assert Split(0, 0).names(3) == ["train"] * 3


@pytest.mark.parametrize(
    ("low", "high", "kept"),
    [(0.1, 0.9, [1, 2, 3]), (0, 1, [0, 1, 2, 3, 4]), (0.125, 0.875, [1, 2, 3]), (0.5, 0.5, [2]), (1, 1, [4])],
)
def test_a_range_of_pass_rates_has_its_ends_and_no_row_that_was_not_measured(low, high, kept):
    assert Choice(keep_pass=(low, high)).places(HARD, range(6), 0) == kept


def test_without_a_choice_all_training_rows_come_in_their_order():
    assert Choice().places(HARD, [5, 0, 3], 0) == [0, 3, 5]
    assert Choice(keep_pass=(0, 1)).places(HARD, [5, 0, 3], 0) == [0, 3]


def test_a_tenth_written_is_a_tenth_measured():
    rows = [RowFacts("a", right / 10) for right in range(11)]
    assert Choice(keep_pass=parse_range("0.1-0.9")).places(rows, range(11), 0) == list(range(1, 10))
    assert Choice(keep_pass=parse_range("0.3-.7")).places(rows, range(11), 0) == [3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("there", "mix", "rows", "counts"),
    [
        # a has 50 rows for each of its 2 parts, b 80 for its 1: 50 * 3 rows.
        ({"a": 100, "b": 80}, "a=2,b=1", None, {"a": 100, "b": 50}),
        ({"a": 100, "b": 20}, "a=2,b=1", None, {"a": 40, "b": 20}),
        # 7 rows of a for 3 parts: 4 * 7 / 3 = 9 rows, 6.75 of a and 2.25 of b.
        ({"a": 7, "b": 80}, "a=3,b=1", None, {"a": 7, "b": 2}),
        # 0.1 and 0.3 are read as they are written: 10 rows of a, 30 of b.
        ({"a": 10, "b": 30}, "a=0.1,b=0.3", None, {"a": 10, "b": 30}),
        # 10 rows in three equal parts: the first of equal remainders gets the rest.
        ({"a": 9, "b": 9, "c": 9}, "a=1,b=1,c=1", 10, {"a": 4, "b": 3, "c": 3}),
        ({"a": 2, "b": 9}, "a=2,b=1", 9, {"a": 6, "b": 3}),
        ({"a": 5}, "a=7", None, {"a": 5}),
    ],
)
def test_a_mixture_is_the_largest_without_repeats_or_as_large_as_asked(there, mix, rows, counts):
    assert mixture(there, parse_mix(mix), rows) == counts


@pytest.mark.parametrize("weights", [(1, 1), (3, 7), (1, 1000)])
@pytest.mark.parametrize("there", [(1, 1), (13, 1000), (997, 8), (1000, 1)])
def test_no_row_is_needed_twice_and_one_more_would_be(weights, there):
    counts, shares = dict(zip("ab", there, strict=True)), dict(zip("ab", map(F, weights), strict=True))
    try:
        found = mixture(counts, shares)
    except ValueError:
        assert min(F(counts[n]) / shares[n] for n in "ab") * min(shares.values()) < 1  # a share below one row
        return
    total = sum(found.values())
    assert all(found[name] <= counts[name] for name in "ab")
    assert all(abs(found[name] - total * shares[name] / sum(weights)) < 1 for name in "ab")
    assert any((total + 1) * shares[name] / sum(weights) > counts[name] for name in "ab")


def test_a_mixture_draws_by_the_seed_and_no_row_twice():
    rows = rows_of(a=100, b=80, c=5)
    choice = Choice(mix=parse_mix("a=2,b=1"))
    found = choice.places(rows, range(185), 0)
    assert of(rows, found) == {"a": 100, "b": 50} and len(set(found)) == 150
    assert found == choice.places(rows, range(185), 0) != choice.places(rows, range(185), 1)
    first, last = of(rows, found[:75]), of(rows, found[75:])
    assert min(first["a"], last["a"]) > 40 and min(first["b"], last["b"]) > 15  # mixed, not one after the other


def test_a_larger_mixture_holds_the_smaller_one():
    rows = rows_of(a=100, b=80)
    small, large = (set(Choice(mix=parse_mix("a=2,b=1"), mix_rows=n).places(rows, range(180), 0)) for n in (30, 60))
    assert small < large and len(large) == 60


def test_repeats_are_shared_out_evenly():
    rows = rows_of(a=4, b=30)
    found = Choice(mix=parse_mix("a=1,b=1"), mix_rows=20).places(rows, range(34), 0)
    times = Counter(found)
    assert of(rows, found) == {"a": 10, "b": 10}
    assert sorted(times[place] for place in range(4)) == [2, 2, 3, 3]  # 10 rows of 4
    assert all(times[place] <= 1 for place in range(4, 34))


def test_only_training_rows_are_mixed():
    rows = rows_of(a=10, b=10)
    train = [0, 2, 4, 6, 11, 13]
    assert sorted(Choice(mix=parse_mix("b=1,a=2")).places(rows, train, 0)) == train
    assert set(Choice(mix=parse_mix("a=1,b=1")).places(rows, train, 0)) < set(train)


def test_a_curriculum_goes_from_easy_to_hard_and_shuffles_what_is_equal():
    rows = [RowFacts("a", rate) for rate in [0.25, 0.75, None, 1.0, 0.5] * 20]
    found = Choice(curriculum=True).places(rows, range(100), 0)
    rates = [rows[place].pass_rate for place in found]
    assert rates == [1.0] * 20 + [0.75] * 20 + [0.5] * 20 + [0.25] * 20
    assert found[:20] != sorted(found[:20]) and set(found[:20]) == set(range(3, 100, 5))
    assert (
        found
        == Choice(curriculum=True).places(rows, range(100), 0)
        != Choice(curriculum=True).places(rows, range(100), 1)
    )


def test_all_at_once():
    rows = [RowFacts(source, rate / 4) for source in "ab" for rate in range(5) for _ in range(10)]
    found = Choice((0.25, 0.75), parse_mix("a=1,b=2"), curriculum=True).places(rows, range(100), 0)
    assert of(rows, found) == {"a": 15, "b": 30}  # 30 of each are in the range
    rates = [rows[place].pass_rate or 0 for place in found]
    assert rates == sorted(rates, reverse=True) and set(rates) == {0.25, 0.5, 0.75}


@pytest.mark.parametrize(
    "text", ["0.1", "0.9-0.1", "0-1.1", "-0.1-0.5", "a-b", "nan-1", "0.1-", "", "0.1-0.5-0.9", "٠-١"]
)
def test_a_range_that_is_none_is_refused_by_name(text):
    with pytest.raises(ValueError, match=r"--keep-pass is .*it must be LOW-HIGH"):
        parse_range(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a", "--mix is 'a'; it must be NAME=WEIGHT"),
        ("", "it must be NAME=WEIGHT"),
        ("a=1,", "it must be NAME=WEIGHT"),
        ("=1", "it must be NAME=WEIGHT"),
        ("a=1,a=2", "--mix names a twice"),
        ("a=0", "--mix a: Input should be greater than 0, not '0'"),
        ("a=-1", "--mix a: Input should be greater than 0"),
        ("a=nan", "--mix a: Input should be a finite number"),
        ("a=1e999", "--mix a: Input should be a finite number"),
        ("a=x", "--mix a: Input should be a valid number"),
    ],
)
def test_weights_that_are_none_are_refused_by_name(text, fault):
    with pytest.raises(ValueError, match=fault):
        parse_mix(text)


def test_names_may_hold_what_hub_names_hold():
    assert parse_mix(" org/set = 2 ,b=c=0.5") == {"org/set": 2, "b=c": F(1, 2)}


@pytest.mark.parametrize(
    ("choice", "fault"),
    [
        (Choice(mix={"c": F(1)}), "--mix: no training row is of 'c'; there are a, b"),
        (Choice(keep_pass=(0.5, 1), mix={"a": F(1), "b": F(1)}), "--keep-pass: no training row of b has a pass rate"),
        (Choice(curriculum=True), "--curriculum: no training row of b has a pass rate; `avar difficulty MODEL FILE`"),
        (Choice(mix={"a": F(1), "b": F(11)}), "--mix: of 5 rows, a would get none; raise its weight"),
        (
            Choice(keep_pass=(0.3, 0.4), mix={"a": F(1)}),
            "--keep-pass: no training row is in the range; take a wider one",
        ),
    ],
)
def test_a_choice_that_the_rows_cannot_fulfil_is_named(choice, fault):
    rows = HARD + rows_of(b=5)
    with pytest.raises(ValueError, match=fault):
        choice.places(rows, range(11), 0)


def test_a_source_of_which_nothing_is_in_the_range_is_named():
    rows = [*HARD, RowFacts("b", 0.0)]
    with pytest.raises(ValueError, match="--mix: no training row of b is left to choose from"):
        Choice(keep_pass=(0.1, 1), mix={"a": F(1), "b": F(1)}).places(rows, range(7), 0)


def test_a_size_needs_a_mixture():
    with pytest.raises(ValueError, match="--mix-rows is the size of a mixture"):
        Choice(mix_rows=5)
    with pytest.raises(ValueError, match="--mix-rows is 0; it must be at least 1"):
        Choice(mix={"a": F(1)}, mix_rows=0)
