"""The intervention against eager attention whose maps are reweighted in the open."""

import math
import sys

import pytest
import torch
from torch.nn import functional as F

from avar_rl.attention.recorder import record_span_mass
from avar_rl.attention.roles import Markup, Role
from avar_rl.intervention import Intervention, intervene
from tests.numerics.tiny_qwen import FAMILIES, IMAGE_PAD, PAD, VIDEO_PAD, VISION_END, VISION_START, make_model

IM_START, IM_END, NEWLINE, SYSTEM, USER, ASSISTANT = 90, 91, 92, 93, 94, 95
MARKUP = Markup(
    IM_START,
    IM_END,
    VISION_START,
    VISION_END,
    IMAGE_PAD,
    VIDEO_PAD,
    NEWLINE,
    {Role.SYSTEM: (SYSTEM,), Role.USER: (USER,), Role.RESPONSE: (ASSISTANT,)},
)
IMAGE = [VISION_START, IMAGE_PAD, IMAGE_PAD, IMAGE_PAD, IMAGE_PAD, VISION_END]
SYSTEM_TURN = [IM_START, SYSTEM, NEWLINE, 20, 21, 22, IM_END, NEWLINE]
ANSWER = [IM_START, ASSISTANT, NEWLINE]


def user(*content: int) -> list[int]:
    return [IM_START, USER, NEWLINE, *content, IM_END, NEWLINE]


# An image first, text before the image, two images with text between, none at all
PROMPTS = [
    SYSTEM_TURN + user(*IMAGE, 30, 31) + ANSWER,
    SYSTEM_TURN + user(32, 33, 34, *IMAGE, 35) + ANSWER,
    SYSTEM_TURN + user(*IMAGE, 36, *IMAGE, 37) + ANSWER,
    SYSTEM_TURN + user(38, 39, 40, 41) + ANSWER,
]


def batch(prompts: list[list[int]], padding: str = "left") -> dict:
    width = max(map(len, prompts))
    rows, masks = [], []
    for prompt in prompts:
        fill = [PAD] * (width - len(prompt))
        rows.append(fill + prompt if padding == "left" else prompt + fill)
        mask = [0] * len(fill), [1] * len(prompt)
        masks.append(mask[0] + mask[1] if padding == "left" else mask[1] + mask[0])
    ids = torch.tensor(rows)
    images = int((ids == VISION_START).sum())
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.tensor(masks),
        "mm_token_type_ids": (ids == IMAGE_PAD).long(),
    }
    if images:
        inputs["pixel_values"] = torch.randn(16 * images, 1176, generator=torch.Generator().manual_seed(5))
        inputs["image_grid_thw"] = torch.tensor([[1, 4, 4]] * images)
    return inputs


def expected_marks(ids: list[int]) -> tuple[list[bool], list[bool], list[bool]]:
    """Queries acted on, image keys, system keys: worked out by a plain loop, apart from `token_roles`."""
    acts, image, system = [], [], []
    in_system = seen = False
    for place, token in enumerate(ids):
        if ids[place - 2 : place + 1] == [IM_START, SYSTEM, NEWLINE]:
            in_system = True
            system.append(False)
        else:
            in_system = in_system and token != IM_END
            system.append(in_system)
        image.append(token == IMAGE_PAD)
        seen = seen or token == IMAGE_PAD
        acts.append(seen and token != IMAGE_PAD)
    return acts, image, system


def eager_reference(monkeypatch, model, ids_BT: torch.Tensor, intervention: Intervention):
    """Patches the model's own eager attention with maps that are changed as the paper's formula reads."""
    module = sys.modules[type(model).__module__]
    marks = [expected_marks(ids) for ids in ids_BT.tolist()]
    acted, image, system = (torch.tensor([m[i] for m in marks])[:, None] for i in range(3))
    factor = 1 + intervention.img * image - intervention.sys * system  # (B, 1, K)

    def attention(module, query, key, value, attention_mask, scaling, **_):
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        logits = query @ key.transpose(2, 3) * scaling
        acts = acted[..., None] & torch.tensor(module.layer_idx in (intervention.layers or range(99)))
        if intervention.mode == "logit":
            logits = torch.where(acts, logits * factor[:, None], logits)
        if attention_mask is None:
            T = query.shape[2]
            attention_mask = torch.full((T, T), -math.inf).triu(1)
        weight = (logits + attention_mask).softmax(-1)
        if intervention.mode == "weight":
            changed = weight * factor[:, None]
            weight = torch.where(acts, changed / changed.sum(-1, keepdim=True), weight)
        return (weight @ value).transpose(1, 2).contiguous(), weight

    stock = module.eager_attention_forward
    # Only the language model: the vision tower of this modelling file shares the function
    monkeypatch.setattr(
        module,
        "eager_attention_forward",
        lambda m, *a, **k: attention(m, *a, **k) if hasattr(m, "layer_idx") else stock(m, *a, **k),
    )


CASES = [
    Intervention(0.15, 0.4, "weight"),
    Intervention(0.15, 0.4, "logit"),
    Intervention(1.0, 0.0, "weight", layers=(1,)),
    Intervention(0.0, 0.6, "logit", layers=(0, 2)),
]


@pytest.mark.parametrize("intervention", CASES, ids=str)
@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_equals_eager_attention_with_changed_maps(monkeypatch, intervention, padding, family):
    inputs = batch(PROMPTS, padding)
    real = inputs["attention_mask"].bool()
    plain = make_model("sdpa", family)(**inputs).logits
    found = {}
    for implementation in ("sdpa", "eager"):
        model = make_model(implementation, family)
        with intervene(model, intervention, MARKUP):
            found[implementation] = model(**inputs).logits
    eager_reference(monkeypatch, model, inputs["input_ids"], intervention)
    wanted = make_model("eager", family)(**inputs).logits
    for logits in found.values():
        torch.testing.assert_close(logits[real], wanted[real], rtol=1e-5, atol=1e-5)
    changed = ((wanted - plain).abs().amax(-1) > 1e-3) & real
    assert changed[:3].any(1).all()  # it does something
    assert not changed[3].any()  # without an image there is no query to act on


@torch.no_grad()
def test_zero_and_text_only_and_after_the_block_are_bit_identical():
    model, inputs = make_model("sdpa"), batch(PROMPTS)
    plain = model(**inputs).logits
    with intervene(model, Intervention(0.0, 0.0), MARKUP):
        assert torch.equal(model(**inputs).logits, plain)
    text = batch(PROMPTS[3:])
    plain_text = model(**text).logits
    with intervene(model, Intervention(0.5, 0.5), MARKUP):
        assert torch.equal(model(**text).logits, plain_text)
        assert not torch.equal(model(**inputs).logits, plain)
    assert torch.equal(model(**inputs).logits, plain)


@pytest.mark.parametrize("mode", ["weight", "logit"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_generation_with_cache_equals_whole_forwards(mode, family):
    """Left-padded batch, key cache: every step's logits are those of a forward pass over all tokens so far."""
    model, inputs = make_model("sdpa", family), batch(PROMPTS)
    with intervene(model, Intervention(0.5, 0.4, mode), MARKUP):
        output = model.generate(
            **inputs,
            max_new_tokens=5,
            do_sample=False,
            suppress_tokens=[2, 3, 4, 5, 6, *range(90, 96)],
            return_dict_in_generate=True,
            output_logits=True,
        )
        ids, T = output.sequences, inputs["input_ids"].shape[1]
        whole = {
            **inputs,
            "input_ids": ids,
            "attention_mask": F.pad(inputs["attention_mask"], (0, 5), value=1),
            "mm_token_type_ids": F.pad(inputs["mm_token_type_ids"], (0, 5)),
        }
        wanted = model(**whole).logits[:, T - 1 : -1]
    torch.testing.assert_close(torch.stack(output.logits, 1), wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_recorded_masses_are_those_of_the_intervened_attention():
    model, inputs = make_model("sdpa"), batch(PROMPTS[:1])
    acts, image, system = expected_marks(inputs["input_ids"][0].tolist())
    spans = torch.tensor([[image, system]])

    def masses():
        with record_span_mass(model, spans, layers=[0]) as record:
            model(**inputs)
        return record.stack()[0, 0]

    plain = masses()
    with intervene(model, Intervention(0.15, 0.4), MARKUP):
        found = masses()
    # A' = f·A / Σ f·A, so mass' = f·mass / (1 + 0.15·mass_image − 0.4·mass_system)
    wanted = plain * torch.tensor([1.15, 0.6])[:, None, None] / (1 + 0.15 * plain[0] - 0.4 * plain[1])
    torch.testing.assert_close(found, torch.where(torch.tensor(acts), wanted, plain))


def test_scaling_a_negative_logit_lowers_its_weight():
    query, key, acts = torch.tensor([[2.0, 0.0]]), torch.tensor([[-1.0, 0.5]]), torch.tensor([True])
    logit, weight = Intervention(0.15, 0.0, "logit"), Intervention(0.15, 0.0, "weight")
    gain = torch.tensor([0.15])
    score = logit.widen_query(query, acts, 4) @ logit.widen_key(key, gain, 4, 0.5).T * 0.5
    assert score.item() == pytest.approx(-1.15)  # −1 · 1.15
    gain = torch.tensor([math.log(1.15)])
    score = weight.widen_query(query, acts, 8) @ weight.widen_key(key, gain, 8, 0.5).T * 0.5
    assert score.item() == pytest.approx(-1 + math.log(1.15))  # its exponential is 1.15 times as large
    off = weight.widen_query(query, ~acts, 8) @ weight.widen_key(key, gain, 8, 0.5).T * 0.5
    assert off.item() == -1.0


def test_written_form():
    whole = Intervention.parse("img=0.15,sys=0.05,mode=logit,layers=4-6+9")
    assert whole == Intervention(0.15, 0.05, "logit", (4, 5, 6, 9))
    assert str(whole) == "img=0.15,sys=0.05,mode=logit,layers=4-6+9" and Intervention.parse(str(whole)) == whole
    assert Intervention.parse("sys=0.4") == Intervention(0.15, 0.4, "weight")
    assert Intervention.parse("layers=4-6, 9,mode=logit,sys=0.05") == whole  # a part without = goes on with the layers
    assert Intervention.parse("sys=1,mode=logit").sys == 1.0
    assert {whole: 1}[Intervention(img=0.15, sys=0.05, mode="logit", layers=[9, 4, 5, 6, 6])] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("img", "intervention 'img': 'img' is not one of img="),
        ("img=1,2", "intervention 'img=1,2': '2' is not one of img="),
        ("img=1,img=2", "intervention 'img=1,img=2': 'img=2' is given twice"),
        ("im=1", r"unknown key intervention.im \(did you mean img\?\)"),
        ("img=x", "intervention.img: Input should be a valid number, .*'x'"),
        ("img=-1", "intervention.img: Input should be greater than or equal to 0, not '-1'"),
        ("img=nan", "intervention.img: Input should be a finite number"),
        ("img=inf", "intervention.img: Input should be a finite number"),
        ("sys=1", "intervention: sys must be below 1 in weight mode"),
        ("sys=1.5,mode=logit", "intervention.sys: Input should be less than or equal to 1"),
        ("mode=x", "intervention.mode: Input should be 'logit' or 'weight', not 'x'"),
        ("layers=3-1", "intervention.layers: .*the range 3-1 runs backwards"),
        ("layers=", "intervention.layers: .*FIRST-LAST"),
    ],
)
def test_a_mistake_in_the_written_form_is_one_sentence(text, message):
    with pytest.raises(ValueError, match=f"^{message}") as error:
        Intervention.parse(text)
    assert "\n" not in str(error.value)


@torch.no_grad()
def test_misuse_is_refused():
    model, inputs = make_model("sdpa"), batch(PROMPTS)
    with pytest.raises(ValueError, match=r"layers \[7\]"), intervene(model, Intervention(layers=(1, 7)), MARKUP):
        pass
    cache = model(**inputs, use_cache=True).past_key_values
    with intervene(model, Intervention(), MARKUP):
        with pytest.raises(ValueError, match="on already"), intervene(model, Intervention(), MARKUP):
            pass
        with pytest.raises(ValueError, match="outside the intervention"):
            model(input_ids=inputs["input_ids"][:, :1], past_key_values=cache)
        with pytest.raises(ValueError, match="needs input_ids"):
            model(inputs_embeds=torch.zeros(1, 3, 64))
        with pytest.raises(ValueError, match="StaticCache"):
            model.generate(**inputs, max_new_tokens=2, cache_implementation="static")
    model(**inputs)  # and nothing is left behind
