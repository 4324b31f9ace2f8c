"""From a step's scored responses to the record: tokens, masses, images; what is asked of verl's storage."""

import io
from dataclasses import replace

import pytest
import torch
from PIL import Image

from avar_rl.rollouts.record import read_step
from avar_rl.verl_plugin.config.settings import RolloutSettings
from avar_rl.verl_plugin.scored_batch import ScoredBatch, ScoredResponse
from avar_rl.verl_plugin.watch.record import RolloutRecorder, token_texts
from rewards.combine import Score, Values
from rewards.sample import AttentionSample, Masses, Tokens
from tests.unit.rollout_samples import picture

VOCABULARY = {1: b"I ", 2: b"see ", 3: "é".encode()[:1], 4: "é".encode()[1:], 5: b"<|im_end|>", 6: b"\xff"}
VOCABULARY |= {10 + i: bytes([byte]) for i, byte in enumerate("漢".encode())}


def decode(ids: list[int]) -> str:
    """As a byte-level tokenizer does."""
    return b"".join(VOCABULARY[i] for i in ids).decode(errors="replace")


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([1, 2, 5], ["I ", "see ", "<|im_end|>"]),
        ([1, 3, 4, 1], ["I ", "", "é", "I "]),
        ([10, 11, 12, 2], ["", "", "漢", "see "]),
        ([1, 3], ["I ", "\ufffd"]),  # cut within a character
        ([6, 1, 2], ["", "\ufffdI ", "see "]),  # a byte that starts no character
        ([6, 6, 6, 6, 6], ["", "", "", "\ufffd" * 4, "\ufffd"]),
        ([], []),
    ],
)
def test_tokens_put_together_are_the_response(ids, expected):
    texts = token_texts(ids, decode, {})
    assert texts == expected and "".join(texts) == decode(ids)


def test_single_tokens_are_decoded_once():
    calls = []
    known = {}
    for _ in range(3):
        token_texts([1, 2, 1], lambda ids: calls.append(ids) or decode(ids), known)
    assert calls == [[1], [2]]


MASSES = Masses(torch.tensor([[0.1, 0.3], [0.5, 0.7]]), torch.tensor([[0.0, 0.2], [0.1, 0.1]]))
SAMPLE = AttentionSample("<image>What?", "I see", "red", row_id="tiny-0", image_sizes=((96, 96),), masses=MASSES)


def response(key: str, **changes) -> ScoredResponse:
    found = ScoredResponse(
        key=key,
        uid=key.split("_")[0],
        sample=SAMPLE,
        token_ids_T=torch.tensor([1, 2]),
        values=Values({"accuracy": 1.0, "visual": 0.5}),
        score=Score(1.15, {"accuracy": 1.0, "visual": 0.15}),
    )
    return replace(found, **changes)


def prompts_with(*images):
    """A fetch that answers every key with the same images, and the list of the keys it was asked for."""
    asked = []

    def fetch(keys):
        asked.extend(keys)
        content = [*({"type": "image", **image} for image in images), {"type": "text", "text": "What?"}]
        return [[{"role": "system", "content": "Think."}, {"role": "user", "content": content}] for _ in keys]

    return fetch, asked


def test_a_step_is_written_with_masses_averaged_over_layers(tmp_path):
    fetch, asked = prompts_with({"bytes": picture("red"), "image": None})
    batch = ScoredBatch(step=7, responses=(response("a_0_0"), response("a_1_0"), response("b_0_0")), layers=2)
    RolloutRecorder(RolloutSettings(dir=str(tmp_path))).write(batch, decode, fetch)
    first, second, third = read_step(tmp_path / "step_000007.jsonl")
    assert (first.step, first.group, third.group, first.row, first.gold) == (7, "a", "b", "tiny-0", "red")
    assert first.tokens == ("I ", "see ") and first.image_mass == (0.2, 0.6) and first.system_mass == (0.1, 0.1)
    assert first.raw == {"accuracy": 1.0, "visual": 0.5} and first.weighted["visual"] == 0.15 and first.total == 1.15
    assert first.measured.keys() == {"image_mass", "system_mass"}
    assert asked == ["a_0_0", "b_0_0"]  # one of each group
    assert first.images == second.images == third.images
    assert (tmp_path / first.images[0]).read_bytes() == picture("red")


def test_what_else_is_known_of_each_token_is_written(tmp_path):
    fetch, _ = prompts_with()
    tokens = Tokens(torch.tensor([-1.0, -2.0]), torch.tensor([0.5, 0.12346]), torch.tensor([-0.25, 2.5]))
    masses = replace(MASSES, region_TL=torch.tensor([[0.0, 0.1], [0.2, 0.2]]))
    sample = replace(SAMPLE, tokens=tokens, masses=masses)
    weighted = response("a_0_0", sample=sample, weights_T=torch.tensor([0.0, 2.5]))
    RolloutRecorder(RolloutSettings(dir=str(tmp_path))).write(ScoredBatch(1, (weighted,)), decode, fetch)
    (written,) = read_step(tmp_path / "step_000001.jsonl")
    assert written.measured == {
        "image_mass": (0.2, 0.6),
        "system_mass": (0.1, 0.1),
        "region_mass": (0.05, 0.2),
        "dependence": (-0.25, 2.5),
        "weight": (0.0, 2.5),
        "entropy": (0.5, 0.1235),
    }


def test_images_of_every_kind_become_paths(tmp_path):
    photo = Image.new("RGB", (8, 8), "green")
    encoded = io.BytesIO()
    photo.save(encoded, "JPEG")
    (tmp_path / "own.png").write_bytes(picture("blue"))
    items = [{"bytes": encoded.getvalue()}, {"image": f"file://{tmp_path}/own.png"}, {"image": photo}]
    fetch, _ = prompts_with(*items)
    RolloutRecorder(RolloutSettings(dir=str(tmp_path / "record"))).write(
        ScoredBatch(1, (response("a_0_0"),)), decode, fetch
    )
    jpeg, own, png = read_step(tmp_path / "record" / "step_000001.jsonl")[0].images
    assert jpeg.endswith(".jpeg") and (tmp_path / "record" / jpeg).read_bytes() == encoded.getvalue()
    assert own == str(tmp_path / "own.png")
    assert Image.open(tmp_path / "record" / png).getpixel((0, 0)) == (0, 128, 0)


def test_without_masses_or_images_the_rest_is_recorded(tmp_path):
    fetch, asked = prompts_with({"bytes": picture("red")})
    bare = response(
        "a_0_0", sample=replace(SAMPLE, masses=None), values=Values({"accuracy": None}), masked=True, error="why"
    )
    settings = RolloutSettings(dir=str(tmp_path), images=False)
    RolloutRecorder(settings).write(ScoredBatch(1, (bare,)), decode, fetch)
    (written,) = read_step(tmp_path / "step_000001.jsonl")
    assert not asked and written.images == written.image_mass == written.system_mass == ()
    assert written.raw == {"accuracy": None} and written.masked and written.error == "why"


@pytest.mark.parametrize(
    ("settings", "steps"), [({"every": 2}, [2, 4]), ({"every": 1}, [1, 2, 3, 4]), ({"dir": None}, [])]
)
def test_what_is_switched_off_is_not_written(tmp_path, settings, steps):
    fetch, asked = prompts_with()
    recorder = RolloutRecorder(RolloutSettings(**({"dir": str(tmp_path)} | settings)))
    for step in range(1, 5):
        recorder.write(ScoredBatch(step, (response("a_0_0"),)), decode, fetch)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step_{step:06d}.jsonl" for step in steps]
    assert len(asked) == len(steps)
