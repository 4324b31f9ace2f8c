"""The shipped rewards beside accuracy and judge, worked by hand."""

import math

import pytest
import torch

from rewards.combine import RewardSet, Term
from rewards.plugin import find
from rewards.sample import AttentionSample, Masses, Sample, Tokens, prefill_of, question_text
from rewards.shipped.dependence import dependence
from rewards.shipped.evidence import evidence
from rewards.shipped.format import format_reward, sample_format
from rewards.shipped.late_attention import late_attention
from rewards.shipped.length import length
from rewards.shipped.repetition import repetition
from rewards.shipped.visual import rank, token_visual_score, visual


@pytest.mark.parametrize(
    "response",
    [
        "<think>I see a circle.</think><answer>6</answer>",
        "<think>several\nlines</think>\n<answer>\n6\n</answer>\n",
    ],
)
def test_right_format(response):
    assert format_reward(response) == 1.0


@pytest.mark.parametrize(
    "response",
    [
        "",
        "6",
        "<answer>6</answer>",
        "<think>a</think>",
        "<think>a</think><answer>6",
        "<answer>6</answer><think>a</think>",
        "<think>a</think>so<answer>6</answer>",
        "<think>a</think><answer>6</answer> done",
        "<think>a</think><answer>6</answer><answer>7</answer>",
        "<think>a<think>b</think></think><answer>6</answer>",
        "<think>a <answer>5</answer></think><answer>6</answer>",
        "<think></think><answer>6</answer>",
        "<think>a</think><answer> </answer>",
    ],
)
def test_wrong_format(response):
    assert format_reward(response) == 0.0


@pytest.mark.parametrize(
    ("prefill", "response", "expected"),
    [
        ("<think>\n", "a</think><answer>6</answer>", 1.0),
        ("<think>", "<think>a</think><answer>6</answer>", 0.0),  # says the tag again
        ("<think>\n", "<answer>6</answer>", 0.0),
        ("<think>\n", "</think><answer>6</answer>", 0.0),  # an empty thought
        ("<think>\n\n</think>\n\n", "<think>a</think><answer>6</answer>", 1.0),  # thinking is switched off
        ("<think>\n\n</think>\n\n", "a</think><answer>6</answer>", 0.0),
        ("", "a</think><answer>6</answer>", 0.0),
    ],
)
def test_a_thought_that_the_chat_template_opens(prefill, response, expected):
    assert sample_format(Sample("q", response, "6", prefill=prefill)) == expected


def test_the_prefill_is_what_stands_after_the_header_of_the_response():
    prompt = "<|im_start|>user\nHow many <think>?<|im_end|>\n<|im_start|>assistant\n"
    assert prefill_of(prompt) == "" and prefill_of(f"{prompt}<think>\n") == "<think>\n"
    assert prefill_of(f"{prompt}6<|im_end|>\n<|im_start|>user\nAnd now?") == ""  # no turn of the assistant is open
    assert prefill_of("<|im_start|>assistant") == prefill_of("assistant\n<think>") == prefill_of("") == ""


# Two tokens, two layers, heads already averaged.
IMAGE = torch.tensor([[0.6, 0.2], [0.1, 0.3]])
SYSTEM = torch.tensor([[0.2, 0.1], [0.1, 0.1]])


def test_ratio_is_the_mean_over_layers_of_image_by_system():
    # token 0: (0.6/0.2 + 0.2/0.1) / 2 = (3 + 2) / 2 = 2.5; token 1: (0.1/0.1 + 0.3/0.1) / 2 = (1 + 3) / 2 = 2
    torch.testing.assert_close(token_visual_score(IMAGE, SYSTEM, eps=1e-12), torch.tensor([2.5, 2.0]))


def test_eps_is_added_to_the_system_mass():
    # (0.6/(0.2+0.1) + 0.2/(0.1+0.1)) / 2 = (2 + 1) / 2; (0.1/0.2 + 0.3/0.2) / 2 = (0.5 + 1.5) / 2
    torch.testing.assert_close(token_visual_score(IMAGE, SYSTEM, eps=0.1), torch.tensor([1.5, 1.0]))


def test_share_is_bounded_by_one():
    # (0.6/0.8 + 0.2/0.3) / 2 = (3/4 + 2/3) / 2 = 17/24; (0.1/0.2 + 0.3/0.4) / 2 = (1/2 + 3/4) / 2 = 5/8
    torch.testing.assert_close(token_visual_score(IMAGE, SYSTEM, mode="share"), torch.tensor([17 / 24, 5 / 8]))
    assert token_visual_score(torch.ones(1, 1), torch.zeros(1, 1), mode="share").item() == 1.0
    assert token_visual_score(torch.zeros(1, 1), torch.zeros(1, 1), mode="share").item() == 0.0


def test_clip_bounds_a_token_after_the_mean_over_layers():
    torch.testing.assert_close(token_visual_score(IMAGE, SYSTEM, eps=1e-12, clip=2.2), torch.tensor([2.2, 2.0]))


def test_more_system_attention_lowers_and_more_image_attention_raises_the_score():
    for mode in ("ratio", "share"):
        base = token_visual_score(IMAGE, SYSTEM, mode=mode)
        assert (token_visual_score(IMAGE, 2 * SYSTEM, mode=mode) < base).all()
        assert (token_visual_score(2 * IMAGE, SYSTEM, mode=mode) > base).all()


def test_scores_keep_the_leading_shape():
    masses = torch.rand(2, 5, 3)
    assert token_visual_score(masses, masses).shape == (2, 5)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="'rank' is unknown; choose ratio or share"):
        token_visual_score(IMAGE, SYSTEM, mode="rank")
    with pytest.raises(ValueError, match="differ in shape"):
        token_visual_score(IMAGE, SYSTEM[:1])


def attended(*masses: Masses, position: int = 0, images=((8, 8),)) -> AttentionSample:
    return AttentionSample("q", "r", "g", image_sizes=images, masses=masses[position], group=masses, position=position)


def shared(*shares: float) -> Masses:
    """Masses of one layer whose token shares are `shares`."""
    image = torch.tensor(shares)[:, None]
    return Masses(image, 1 - image)


def test_visual_reward_is_the_mean_over_the_response():
    # (2.5 + 2) / 2: a mean, not a sum, so length does not pay
    assert visual(attended(Masses(IMAGE, SYSTEM)), eps=1e-12) == pytest.approx(2.25)
    twice = Masses(IMAGE.repeat(2, 1), SYSTEM.repeat(2, 1))
    assert visual(attended(twice), eps=1e-12) == pytest.approx(2.25)
    assert visual(attended(shared(0.5, 0.7)), mode="share") == pytest.approx(0.6)


def test_visual_reward_does_not_apply_to_a_question_without_an_image():
    assert visual(attended(shared(0.0), images=())) is None
    assert visual(attended(shared(0.0))) == 0.0  # an image that is not looked at is another matter


def test_rank_is_the_place_of_the_share_in_the_group():
    group = [shared(0.2), shared(0.9), shared(0.5)]
    assert [visual(attended(*group, position=i), mode="rank") for i in range(3)] == [0.0, 1.0, 0.5]
    assert visual(attended(shared(0.4)), mode="rank") is None  # nobody to compare with
    assert rank([1.0, 1.0, 3.0, 0.0], 0) == 0.5  # one below, one level: (1 + 1/2) / 3
    assert rank([2.0, 2.0], 1) == 0.5


def test_visual_reward_refuses_what_cannot_be_a_response():
    with pytest.raises(ValueError, match=r"T > 0; got \(0, 2\)"):
        visual(attended(Masses(torch.empty(0, 2), torch.empty(0, 2))))
    with pytest.raises(ValueError, match="not finite"):
        visual(attended(shared(1.0, math.nan)))
    with pytest.raises(ValueError, match="no attention masses"):
        visual(AttentionSample("q", "r", "g", image_sizes=((8, 8),)))


def pointed(region: torch.Tensor | None, image: torch.Tensor = IMAGE, boxes=(((0, 0, 4, 4),),)) -> AttentionSample:
    """A response to a row with evidence boxes, and its masses on them."""
    row = {"extra_info": {"evidence": boxes}}
    masses = Masses(image, torch.zeros_like(image), region)
    return AttentionSample("q", "r", "g", row=row, image_sizes=((8, 8),), masses=masses, group=(masses,))


REGION = torch.tensor([[0.3, 0.2], [0.05, 0.0]])  # a part of IMAGE


def test_evidence_is_the_mean_share_of_the_region_in_the_image():
    # token 0: 0.3/0.6 = 0.5 and 0.2/0.2 = 1; token 1: 0.05/0.1 = 0.5 and 0/0.3 = 0; mean of the four 2/4
    assert evidence(pointed(REGION)) == pytest.approx(0.5)
    # mode mass: (0.3 + 0.2 + 0.05 + 0) / 4
    assert evidence(pointed(REGION), mode="mass") == pytest.approx(0.1375)
    assert evidence(pointed(REGION.repeat(3, 1), IMAGE.repeat(3, 1))) == pytest.approx(0.5)  # length does not pay


def test_evidence_lies_between_nothing_and_all_of_the_image():
    assert evidence(pointed(torch.zeros(2, 2))) == 0.0
    assert evidence(pointed(IMAGE)) == 1.0
    assert evidence(pointed(IMAGE * (1 + 1e-6))) == 1.0  # rounding
    assert evidence(pointed(torch.zeros(2, 2), torch.zeros(2, 2))) == 0.0  # an image that is not looked at
    assert evidence(pointed(IMAGE / 20, IMAGE / 10)) == pytest.approx(0.5)  # how much the image gets does not matter
    assert evidence(pointed(REGION * 1.1)) > evidence(pointed(REGION)) > evidence(pointed(REGION * 0.9))
    assert evidence(pointed(IMAGE / 2), eps=0.4) == pytest.approx((0.5 + 0.1 / 0.4 + 0.05 / 0.4 + 0.15 / 0.4) / 4)


@pytest.mark.parametrize("boxes", [None, [], [[]], [[], []]])
def test_evidence_does_not_apply_to_a_row_without_boxes(boxes):
    assert evidence(pointed(None, boxes=boxes)) is None
    assert evidence(pointed(torch.zeros(2, 2), boxes=boxes)) is None
    assert evidence(AttentionSample("q", "r", "g")) is None


def test_evidence_refuses_boxes_that_nothing_was_recorded_for():
    with pytest.raises(ValueError, match="has evidence boxes, but no attention mass on them was recorded"):
        evidence(pointed(None))
    with pytest.raises(ValueError, match=r"region masses \(1, 2\) and image masses \(2, 2\) must be"):
        evidence(pointed(REGION[:1]))
    with pytest.raises(ValueError, match=r"T > 0"):
        evidence(pointed(REGION[:0], IMAGE[:0]))
    with pytest.raises(ValueError, match=r"`extra_info.evidence` is \[\[1, 2\]\]; it must be a list of boxes"):
        evidence(pointed(REGION, boxes=[[1, 2]]))


FADING = torch.tensor([[0.5, 0.3], [0.3, 0.1], [0.2, 0.0], [0.2, 0.2]])  # by token 0.4, 0.2, 0.1, 0.2


def test_late_attention_is_the_ratio_of_two_means():
    def of(image: torch.Tensor, **options) -> float | None:
        return late_attention(attended(Masses(image, torch.zeros_like(image))), eps=1e-12, **options)

    assert of(FADING) == pytest.approx(0.15 / 0.3)  # (0.1 + 0.2)/2 by (0.4 + 0.2)/2
    assert of(FADING, split=0.75) == pytest.approx(0.2 / (0.7 / 3))
    assert of(FADING, split=0.3) == pytest.approx((0.5 / 3) / 0.4)  # int(1.2) = 1 early token
    assert of(FADING, split=0.01) == of(FADING, split=0.3) and of(FADING, split=0.99) == of(FADING, split=0.75)
    assert of(FADING[:3]) == pytest.approx(0.15 / 0.4)  # the middle one of three is late
    assert of(FADING.repeat_interleave(2, 0)) == pytest.approx(0.5)  # length does not pay
    assert of(FADING.flip(0)) == 1.0 and of(FADING.flip(0), clip=3.0) == pytest.approx(2.0)
    assert of(FADING.flip(0), clip=1.5) == 1.5
    assert of(torch.zeros(4, 2)) == 0.0 and of(torch.full((4, 2), 0.3)) == pytest.approx(1.0)


def test_late_attention_eps_is_added_to_the_early_mass():
    assert late_attention(attended(Masses(FADING, FADING)), eps=0.2) == pytest.approx(0.15 / 0.5)
    unseen = torch.tensor([[0.0], [0.5]])  # nothing early: bounded all the same
    assert late_attention(attended(Masses(unseen, unseen))) == 1.0


def test_late_attention_does_not_apply_without_an_image_or_with_one_token():
    assert late_attention(attended(Masses(FADING, FADING), images=())) is None
    assert late_attention(attended(Masses(FADING[:1], FADING[:1]))) is None
    with pytest.raises(ValueError, match="no attention masses"):
        late_attention(AttentionSample("q", "r", "g", image_sizes=((8, 8),)))


def test_rewards_of_attention_say_what_they_need_and_are_gated_by_accuracy():
    declared = {name: (find(name).gate, set(find(name).needs)) for name in ("visual", "evidence", "late_attention")}
    assert declared == {
        "visual": ("accuracy", {"masses"}),
        "evidence": ("accuracy", {"region"}),
        "late_attention": ("accuracy", {"masses"}),
    }


@pytest.mark.parametrize(
    ("name", "option", "fault"),
    [
        ("evidence", ("mode", "lift"), "avar.rewards.evidence.mode"),
        ("evidence", ("eps", 0), "avar.rewards.evidence.eps"),
        ("late_attention", ("split", 1.0), "avar.rewards.late_attention.split"),
        ("late_attention", ("split", 0), "avar.rewards.late_attention.split"),
        ("late_attention", ("clip", 0), "avar.rewards.late_attention.clip"),
    ],
)
def test_options_out_of_bounds_are_refused_before_the_start(name, option, fault):
    with pytest.raises(ValueError, match=fault):
        RewardSet((Term("accuracy", 1.0), Term(name, 0.1, options=(option,))))


def needing(*dependence: float, images=((8, 8),)) -> AttentionSample:
    """A response of tokens that lose so many nats by a masked image."""
    zeros = torch.zeros(len(dependence))
    return AttentionSample("q", "r", "g", image_sizes=images, tokens=Tokens(zeros, zeros, torch.tensor(dependence)))


def test_dependence_is_the_mean_over_the_response_bounded_on_both_sides():
    # (0.5 + 0 - 0.25 + 1) / 4 with 3 nats counting as 1; (-1 - 0.25) / 2 with -7 counting as -1
    assert dependence(needing(0.5, 0.0, -0.25, 3.0)) == 0.3125
    assert dependence(needing(-7.0, -0.25)) == -0.625
    assert dependence(needing(0.5, 3.0), clip=2.0) == 0.625  # (0.5 / 2 + 1) / 2
    assert dependence(needing(9.0)) == 1.0 and dependence(needing(0.0, 0.0)) == 0.0
    assert dependence(needing(0.5, 0.5)) == dependence(needing(0.5))  # a mean, so length does not pay


def test_dependence_does_not_apply_without_an_image_and_is_asked_for_where_it_lacks():
    assert dependence(needing(1.0, images=())) is None
    with pytest.raises(ValueError, match=r"no blind pass was run \(avar.blind\)"):
        dependence(AttentionSample("q", "r", "g", image_sizes=((8, 8),)))
    with pytest.raises(ValueError, match="a response's 0 tokens must be some"):
        dependence(needing())
    with pytest.raises(ValueError, match="2 tokens must be some, and finite"):
        dependence(needing(1.0, math.inf))


@pytest.mark.parametrize(("tokens", "expected"), [(0, 0.0), (70, 0.0), (75, -0.25), (90, -1.0), (200, -1.0)])
def test_length_falls_over_the_buffer(tokens, expected):
    sample = Sample("q", "r", "g", response_tokens=tokens, max_response_tokens=90)
    assert length(sample, buffer=20) == expected  # 70 free tokens, then -1/20 each
    assert length(Sample("q", "r", "g", response_tokens=tokens), buffer=20, max_tokens=90) == expected


def test_length_needs_a_length_a_limit_and_room():
    with pytest.raises(ValueError, match="needs the response's length"):
        length(Sample("q", "r", "g", max_response_tokens=90), buffer=20)
    with pytest.raises(ValueError, match="buffer=90 leaves nothing of the limit of 90"):
        length(Sample("q", "r", "g", response_tokens=1, max_response_tokens=90), buffer=90)


def test_repetition_is_the_share_of_repeated_ngrams():
    def of(text: str, n: int) -> float:
        return repetition(Sample("q", text, "g"), ngram=n)

    assert of("one two three four", 2) == 0.0
    assert of("a b a b a b", 2) == pytest.approx(2 / 5 - 1)  # ab ba ab ba ab: 2 of 5 are new
    assert of("No no NO no", 1) == pytest.approx(1 / 4 - 1)
    assert of("short", 4) == 0.0 and of("", 1) == 0.0


def test_the_question_of_a_row_is_the_text_of_the_users_turns():
    text = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "<image>How many?"}]
    parts = [{"role": "user", "content": [{"type": "image", "image": None}, {"type": "text", "text": "How many?"}]}]
    assert question_text(text) == question_text(parts) == "How many?"
