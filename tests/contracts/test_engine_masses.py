"""The recording engine: layouts of hand-made micro-batches, and its masses against eager maps of plain transformers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict

from avar_rl.verl_plugin.config import environment

environment.prepare("cpu")  # before anything imports verl

from avar_rl.attention.roles import Role, mask_to_positions  # noqa: E402
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


@pytest.fixture(scope="module")
def of_all(tiny_world, models, tmp_path_factory):
    """What engine_masses_worker.py recorded through real engines: {layout: {family: {case: [per row: masses, …]}}}."""
    folder = tmp_path_factory.mktemp("engine_masses")
    command = [sys.executable, str(ROOT / "tests/contracts/engine_masses_worker.py")]
    command += [str(tiny_world / "data" / "sft_train.parquet"), str(models), str(folder / "out.pt")]
    command += [f"trainer.default_local_dir={folder / 'checkpoints'}"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return torch.load(folder / "out.pt", weights_only=False)


@pytest.fixture(scope="module", params=MINIATURES)
def family(request):
    return request.param


@pytest.fixture(params=["padded", "packed", "packed, fused kernels"])
def recorded(of_all, family, request):
    return of_all[request.param][family]


def eager_masses(model, row: dict, markup: dict[str, int]) -> dict[str, torch.Tensor]:
    """From whole maps of plain transformers: every token's image and system mass per layer, heads averaged, (L, T); and
    the log-probability of the token after each, (T - 1,)."""
    ids = row["input_ids"][None]
    types = (ids == markup["image_pad"]).long()
    with torch.no_grad():
        output = model(input_ids=ids, mm_token_type_ids=types, **row["multi_modal_inputs"], output_attentions=True)
    maps_LTT = torch.stack(output.attentions)[:, 0].mean(1)
    starts, ends = (row["input_ids"] == markup["im_start"]).nonzero(), (row["input_ids"] == markup["im_end"]).nonzero()
    system = torch.zeros(ids.shape[1], dtype=torch.bool)
    system[int(starts[0]) + markup["header"] : int(ends[0])] = True
    log_probs = output.logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    image_LT, system_LT = maps_LTT[..., types[0].bool()].sum(-1), maps_LTT[..., system].sum(-1)
    return {"image": image_LT, "system": system_LT, "log_probs": log_probs}


@pytest.fixture(scope="module")
def eager(models, family):
    """A function: a row of the batch -> its eager masses."""
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models / family)
    names = {"im_start": "<|im_start|>", "im_end": "<|im_end|>", "image_pad": "<|image_pad|>"}
    markup = {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
    markup["header"] = 1 + len(tokenizer("system\n")["input_ids"])
    model = AutoModelForImageTextToText.from_pretrained(models / family, attn_implementation="eager").eval()
    return lambda row: eager_masses(model, row, markup)


def by_layer(row: dict, name: str, layers: int) -> torch.Tensor:
    """(L, T) of a row that the engine ships as T * L values."""
    return row[name].reshape(-1, layers).T


@pytest.mark.e2e
def test_masses_of_a_real_forward_equal_eager_maps(recorded, eager):
    rows = recorded["all layers"]
    assert [bool(row["multi_modal_inputs"]) for row in rows] == [False, True, True]  # one without an image
    for row in rows:
        masses, response = eager(row), row["response"]
        assert 0 < int(response.sum()) < len(response)
        torch.testing.assert_close(row["log_probs"][:-1], masses["log_probs"], rtol=1e-5, atol=1e-5)
        for name in ("image", "system"):
            found = by_layer(row, f"{name}_mass", len(masses[name]))
            torch.testing.assert_close(found, torch.where(response, masses[name], 0.0), rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.e2e
def test_wanted_layers_only(recorded, eager):
    for row in recorded["layer 1"]:
        image = torch.where(row["response"], eager(row)["image"][1], 0.0)
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
