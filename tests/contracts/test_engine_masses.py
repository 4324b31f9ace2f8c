"""The recording engine: layouts of hand-made micro-batches, its masses against eager maps of plain transformers, and
its log-probabilities under masked images against plain transformers on the same images."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict

from avar_rl.verl_plugin.config import environment

environment.prepare("cpu")  # before anything imports verl

from avar_rl.attention.families import FAMILIES  # noqa: E402
from avar_rl.attention.roles import Role, mask_to_positions  # noqa: E402
from avar_rl.blind import BlindSettings, PatchFormat, mask_pixels, response_seed  # noqa: E402
from avar_rl.verl_plugin.forward.layout import Layout, require_system, response_tokens, visible  # noqa: E402
from avar_rl.verl_plugin.forward.outputs import mass_outputs  # noqa: E402
from data_tools.miniature.model import MINIATURES, corpus, save  # noqa: E402

ROOT = Path(__file__).parents[2]


def jagged(*rows) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)


def rows_of(nested: torch.Tensor) -> list[list[float]]:
    return [[round(value, 5) for value in row.tolist()] for row in nested.unbind()]


OFFSETS = torch.tensor([0, 5, 8])  # two sequences, of 5 and 3 tokens


def test_in_sft_the_response_is_the_loss_mask():
    batch = TensorDict({"loss_mask": jagged([0, 0, 0, 1, 1], [0, 1, 0])}, batch_size=2)
    assert response_tokens(batch, OFFSETS).int().tolist() == [0, 0, 0, 1, 1, 0, 1, 0]


def test_in_grpo_the_response_is_the_tail_of_each_sequence():
    # 3 and 1 response tokens; the first one's second token is masked (a tool's, say)
    batch = TensorDict({"response_mask": jagged([1, 0, 1], [1])}, batch_size=2)
    assert response_tokens(batch, OFFSETS).int().tolist() == [0, 0, 1, 0, 1, 0, 0, 1]


def test_the_response_mask_goes_before_the_loss_mask():
    batch = TensorDict({"response_mask": jagged([1, 1], [1]), "loss_mask": jagged([1] * 5, [1] * 3)}, batch_size=2)
    assert response_tokens(batch, OFFSETS).int().tolist() == [0, 0, 0, 1, 1, 0, 0, 1]


def layout(packed: bool, lengths: list[int]) -> Layout:
    """Responses: tokens 3 and 4 of the first sequence, token 2 of the second."""
    if packed:
        valid = torch.ones(1, 8, dtype=torch.bool)
        response = torch.tensor([[0, 0, 0, 1, 1, 0, 0, 1]]).bool()
    else:
        valid = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
        response = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 1, 0, 0]]).bool()
    cu_seqlens = OFFSETS.int() if packed else None
    roles = torch.where(response, int(Role.RESPONSE), int(Role.USER)).to(torch.int8)
    ids = torch.zeros_like(valid, dtype=torch.long)
    return Layout(ids, valid, cu_seqlens, OFFSETS, lengths, roles, mask_to_positions(response))


def in_rows(packed: bool, first: list[float], second: float) -> torch.Tensor:
    """Values of the response tokens as recorded: (1, 3) packed, else (2, 2) with a slot of padding."""
    return torch.tensor([[*first, second]]) if packed else torch.tensor([first, [second, 9.0]])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("lengths", "image", "system"),
    [
        # the response's tokens alone, both layers of a token side by side
        ([2, 1], [[0.6, 0.1, 0.2, 0.3], [0.0, 0.4]], [[0.2, 0.1, 0.4, 0.2], [0.2, 0.1]]),
        # a token before them that the policy did not write, and one more of the prompt: 0
        ([3, 2], [[0, 0, 0.6, 0.1, 0.2, 0.3], [0, 0, 0.0, 0.4]], [[0, 0, 0.2, 0.1, 0.4, 0.2], [0, 0, 0.2, 0.1]]),
    ],
)
def test_masses_of_response_tokens_by_layer(packed, lengths, image, system):
    # two heads around the mean
    means = [
        [in_rows(packed, [0.6, 0.2], 0.0), in_rows(packed, [0.2, 0.4], 0.2)],  # layer 0: image, system
        [in_rows(packed, [0.1, 0.3], 0.4), in_rows(packed, [0.1, 0.2], 0.1)],  # layer 1
    ]
    mean_LSBQ = torch.stack([torch.stack(layer) for layer in means])
    masses_LBSHQ = torch.stack([1.5 * mean_LSBQ, 0.5 * mean_LSBQ], dim=3).transpose(1, 2)
    outputs = mass_outputs(masses_LBSHQ, layout(packed, lengths))
    assert rows_of(outputs["image_mass"]) == image and rows_of(outputs["system_mass"]) == system


def test_what_verl_fills_a_packed_batch_up_with_is_a_sequence_of_its_own_that_nobody_sees():
    cu_seqlens, valid = visible(torch.zeros(1, 10), None, OFFSETS, pad_size=2)
    assert (
        cu_seqlens is not None and cu_seqlens.tolist() == [0, 5, 8, 10] and valid.int().tolist() == [[1] * 8 + [0] * 2]
    )
    cu_seqlens, valid = visible(torch.zeros(1, 8), None, OFFSETS, pad_size=0)
    assert cu_seqlens is not None and cu_seqlens.tolist() == [0, 5, 8] and valid.all()
    cu_seqlens, valid = visible(torch.zeros(2, 5), torch.tensor([[1] * 5, [1, 1, 1, 0, 0]]), OFFSETS, pad_size=0)
    assert cu_seqlens is None and valid.sum(1).tolist() == [5, 3]


def test_a_response_without_a_system_turn_is_refused_but_a_filler_row_is_not():
    system, user, response = int(Role.SYSTEM), int(Role.USER), int(Role.RESPONSE)
    roles = torch.tensor([[system, user, response], [user, user, user]], dtype=torch.int8)
    require_system(roles, None)  # verl's filler row has neither
    roles[1, 2] = response
    with pytest.raises(ValueError, match=r"rows \[1\] of a micro-batch have no SYSTEM token"):
        require_system(roles, None)
    with pytest.raises(ValueError, match=r"rows \[1\]"):
        require_system(roles.view(1, 6), torch.tensor([0, 3, 6]))


@pytest.fixture(scope="module")
def models(tiny_world, tmp_path_factory):
    """A folder with the miniature of every family in a folder of its name."""
    folder = tmp_path_factory.mktemp("families")
    for family in MINIATURES:
        save(folder / family, corpus(tiny_world / "data"), 0, family)
    return folder


def run_engines(tiny_world, models: Path, folder: Path, *launcher: str) -> dict:
    """What engine_masses_worker.py gets from real engines: {layout: {family: {case: [per row: masses, …]}}}."""
    command = [sys.executable, *launcher, str(ROOT / "tests/contracts/engine_masses_worker.py")]
    command += [str(tiny_world / "data" / "sft_train.parquet"), str(models), str(folder / "out.pt")]
    command += [f"trainer.default_local_dir={folder / 'checkpoints'}"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return torch.load(folder / "out.pt", weights_only=False)


@pytest.fixture(scope="module")
def of_all(tiny_world, models, tmp_path_factory):
    return run_engines(tiny_world, models, tmp_path_factory.mktemp("engine_masses"))


@pytest.fixture(scope="module")
def of_two_ranks(tiny_world, models, tmp_path_factory):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return run_engines(tiny_world, models, tmp_path_factory.mktemp("ulysses"), *launcher)


@pytest.fixture(scope="module", params=MINIATURES)
def family(request):
    return request.param


@pytest.fixture(params=["padded", "packed", "packed, fused kernels"])
def layout_name(request):
    return request.param


@pytest.fixture
def recorded(of_all, family, layout_name):
    return of_all[layout_name][family]


class Eager:
    """Plain transformers on one row of the batch, with whole attention maps."""

    def __init__(self, folder: Path):
        from transformers import AutoModelForImageTextToText, AutoProcessor

        processor = AutoProcessor.from_pretrained(folder)
        names = {"im_start": "<|im_start|>", "im_end": "<|im_end|>", "image_pad": "<|image_pad|>"}
        self.markup = {name: processor.tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
        self.pads = processor.tokenizer.convert_tokens_to_ids(["<|image_pad|>", "<|video_pad|>"])
        self.header = 1 + len(processor.tokenizer("system\n")["input_ids"])
        self.patch_format = PatchFormat.of(processor.image_processor)
        self.model = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager").eval()

    def masses(self, row: dict) -> dict[str, torch.Tensor]:
        """Every token's mass on the image, on its left half and on the system turn per layer, heads averaged, (L, T);
        and `log_probs`."""
        ids, output = row["input_ids"], self.run(row, row["multi_modal_inputs"])
        maps_LTT = torch.stack(output.attentions)[:, 0].mean(1)
        starts, ends = (ids == self.markup["im_start"]).nonzero(), (ids == self.markup["im_end"]).nonzero()
        system = torch.zeros(len(ids), dtype=torch.bool)
        system[int(starts[0]) + self.header : int(ends[0])] = True
        image = ids == self.markup["image_pad"]
        left = image.clone()
        left[image] = self.left_half(row["multi_modal_inputs"])
        image_LT, left_LT, system_LT = (maps_LTT[..., keys].sum(-1) for keys in (image, left, system))
        return {"image": image_LT, "left": left_LT, "system": system_LT, "log_probs": next_log_probs(output, ids)}

    def left_half(self, images: dict) -> torch.Tensor:
        """Which image tokens of a row are cells that begin left of its image's middle."""
        halves = [torch.zeros(0, dtype=torch.bool)]
        for _, height, width in images.get("image_grid_thw", torch.zeros(0, 3)).tolist():
            columns = width // self.patch_format.merge_size
            halves += [torch.arange(columns) / columns < 0.5] * (height // self.patch_format.merge_size)
        return torch.cat(halves)

    def log_probs(self, row: dict, blind: BlindSettings | None = None, *, sampled: bool) -> torch.Tensor:
        """The log-probability of the token after each, (T - 1,), under this row's images, masked or not; `sampled`:
        among the tokens that a rollout may sample."""
        ids, images = row["input_ids"], row["multi_modal_inputs"]
        if blind is not None and images:
            grid, seeds = images["image_grid_thw"], [response_seed(ids, blind.seed)]
            pixels = mask_pixels(
                images["pixel_values"], grid, seeds, blind, self.patch_format, images_per_row=[len(grid)]
            )
            images = images | {"pixel_values": pixels}
        output = self.run(row, images)
        if sampled:  # verl's rollout never samples pads
            output.logits[..., self.pads] = -torch.inf
        return next_log_probs(output, ids)

    def run(self, row: dict, images: dict):
        ids = row["input_ids"][None]
        types = (ids == self.markup["image_pad"]).long()
        with torch.no_grad():
            return self.model(input_ids=ids, mm_token_type_ids=types, **images, output_attentions=True)


def next_log_probs(output, ids: torch.Tensor) -> torch.Tensor:
    return output.logits[0, :-1].log_softmax(-1).gather(1, ids[1:, None])[:, 0]


@pytest.fixture(scope="module")
def eager(models, family) -> Eager:
    return Eager(models / family)


def by_layer(row: dict, name: str, layers: int) -> torch.Tensor:
    """(L, T) of a row that the engine ships as T * L values."""
    return row[name].reshape(-1, layers).T


@pytest.mark.e2e
def test_masses_of_a_real_forward_equal_eager_maps(recorded, eager):
    rows = recorded["all layers"]
    assert [bool(row["multi_modal_inputs"]) for row in rows] == [False, True, True]  # one without an image
    for row in rows:
        masses, response = eager.masses(row), row["response"]
        assert 0 < int(response.sum()) < len(response)
        torch.testing.assert_close(row["log_probs"][:-1], masses["log_probs"], rtol=1e-5, atol=1e-5)
        for name in ("image", "system"):
            found = by_layer(row, f"{name}_mass", len(masses[name]))
            torch.testing.assert_close(found, torch.where(response, masses[name], 0.0), rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.e2e
def test_mass_on_evidence_boxes_is_recorded_beside_that_on_the_image(recorded, eager):
    text, pointed, without = recorded["region"]
    masses = eager.masses(pointed)
    left = torch.where(pointed["response"], masses["left"], 0.0)
    assert 0.0 < float(left.sum()) < float(masses["image"][:, pointed["response"]].sum())
    torch.testing.assert_close(by_layer(pointed, "region_mass", len(left)), left, rtol=1e-5, atol=1e-5)
    assert not text["region_mass"].any() and not without["region_mass"].any()
    for row, plain in zip(recorded["region"], recorded["all layers"], strict=True):
        assert torch.equal(row["image_mass"], plain["image_mass"]) and "region_mass" not in plain


@pytest.mark.e2e
def test_wanted_layers_only(recorded, eager):
    for row in recorded["layer 1"]:
        image = torch.where(row["response"], eager.masses(row)["image"][1], 0.0)
        torch.testing.assert_close(row["image_mass"], image, rtol=0, atol=1e-5)


@pytest.mark.e2e
def test_recording_leaves_log_probs_as_they_are_and_ends_with_the_request(recorded):
    for with_masses, without in zip(recorded["all layers"], recorded["no request"], strict=True):
        assert torch.equal(with_masses["log_probs"], without["log_probs"])
        assert "image_mass" not in without


@pytest.mark.e2e
def test_a_micro_batch_of_verls_filler_rows_only_has_masses_of_zero(recorded):
    for row in recorded["filler"]:
        assert not row["response"].any() and float(row["image_mass"].abs().sum()) == 0.0


BLIND = {"blind": BlindSettings(), "blind, tokens by their mean": BlindSettings("tokens", 0.5, "mean", 7)}


def assert_blind(cases: dict, eager: Eager, *, sampled: bool = True) -> None:
    """Log-probabilities of the response tokens under masked images are plain transformers' under the same ones."""
    for case, blind in BLIND.items():
        for clean, row in zip(cases["rollout"], cases[case], strict=True):
            count = len(row["input_ids"]) - int(row["response"].int().argmax())
            found, as_it_is = row["blind_log_probs"], clean["log_probs"][-count - 1 : -1]
            assert "log_probs" not in row and found.shape == (count,)
            torch.testing.assert_close(
                found, eager.log_probs(row, blind, sampled=sampled)[-count:], rtol=1e-5, atol=1e-5
            )
            moved = float((found - as_it_is).abs().max())
            assert moved > 1e-3 if row["multi_modal_inputs"] else moved < 1e-5


@pytest.mark.e2e
def test_a_blind_pass_equals_plain_transformers_on_masked_images(recorded, eager, layout_name):
    """Fused kernels keep no logits, from which what a rollout never samples could be taken."""
    assert_blind(recorded, eager, sampled="fused" not in layout_name)


@pytest.mark.e2e
def test_a_response_is_masked_alike_in_another_order_of_the_batch(recorded):
    for row, same in zip(recorded["blind"], recorded["blind, another order"][::-1], strict=True):
        assert torch.equal(row["input_ids"], same["input_ids"])
        torch.testing.assert_close(row["blind_log_probs"], same["blind_log_probs"], rtol=1e-5, atol=1e-5)


@pytest.mark.e2e
def test_a_blind_pass_over_rows_without_images_is_a_plain_one(recorded):
    text, *fillers = recorded["blind, no image"]
    clean = recorded["rollout"][0]["log_probs"]
    expected = clean[-len(text["blind_log_probs"]) - 1 : -1]
    torch.testing.assert_close(text["blind_log_probs"], expected, rtol=1e-5, atol=1e-5)
    assert [len(row["blind_log_probs"]) for row in fillers] == [1, 1]


@pytest.mark.e2e
def test_ranks_that_share_sequences_record_and_mask_alike(of_two_ranks, family, eager):
    """Ulysses, in the families that it is recorded in; the masses of such ranks: test_guided_gradients.py, too."""
    if not FAMILIES[family].ulysses:
        pytest.skip(f"verl does not replace the attention of {family}")
    for row in of_two_ranks["ulysses"][family]["all layers"]:
        image = torch.where(row["response"], eager.masses(row)["image"], 0.0)
        torch.testing.assert_close(by_layer(row, "image_mass", len(image)), image, rtol=1e-5, atol=1e-5)
    assert_blind(of_two_ranks["ulysses"][family], eager)
