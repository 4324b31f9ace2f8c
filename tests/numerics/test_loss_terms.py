"""Terms beside the policy loss through verl's FSDP2 engine, against an independent single process.

Two ranks, gradient checkpointing, micro-batches: padded; packed, with dynamic batches and verl's fused kernels; Ulysses
sequence parallelism. The second rank's rows have no images: it must not dead-lock with the first one's blind passes.
The reference is plain transformers, one row at a time, and the formulas; of the plug-in it only takes which patches are
masked.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from avar_rl.blind import BlindSettings, masked_patches, response_seed
from tests.numerics.made_up_rollouts import ROLLOUT, ROWS
from tests.numerics.test_guided_gradients import assert_equal, chat_inputs, rows  # noqa: F401

ROOT = Path(__file__).parents[2]
PAPO, ENTROPY, LOOKING, EVIDENCE = 0.5, 0.3, 0.4, 0.6
LOSSES = {
    "papo": {"weight": PAPO, "clip": None},
    "double_entropy": {"weight": ENTROPY, "image": 0.5},
    "looking": {"weight": LOOKING, "path": str(ROOT / "tests/numerics/looking_term.py")},
    "evidence": EVIDENCE,
}
PACKED = ["model.use_remove_padding=true"]
DYNAMIC = ["data.use_dynamic_bsz=true", "data.max_token_len_per_gpu=256"]
FUSED = ["model.use_fused_kernels=true", "model.fused_kernel_options.impl_backend=torch"]
WAYS = {
    "padded": ("seq-mean-token-mean", ["model.use_remove_padding=false"]),
    "packed, dynamic batches, fused kernels": ("token-mean", [*PACKED, *DYNAMIC, *FUSED]),
    "ulysses": ("seq-mean-token-mean", [*PACKED, "engine.ulysses_sequence_parallel_size=2"]),
}


def engine_run(tiny_world, rows, out, mode, losses, *overrides):  # noqa: F811
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(ROOT / "tests/numerics/loss_terms_worker.py"), str(ROOT / "recipes/config/tiny_sft"), str(out)]
    command += [mode, json.dumps(losses), f"data.train_files={rows}", f"model.path={tiny_world / 'base'}"]
    command += ["data.train_batch_size=8", "data.micro_batch_size_per_gpu=2", "trainer.resume_mode=disable"]
    command += [f"trainer.default_local_dir={out.parent / 'checkpoints'}", "trainer.total_training_steps=1"]
    command += ["data.num_workers=0", "model.enable_gradient_checkpointing=true", "trainer.n_gpus_per_node=2"]
    command += ["avar.guidance.alpha=0", "avar.guidance.beta=0", *overrides]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-8000:]
    return torch.load(out)


def read(model, inputs, response, unsampled):
    """Of the response's tokens log-probabilities, entropies (T,), masses on the image and on its left half (T, L)."""
    output = model(**inputs, output_attentions=True)
    left_out = torch.zeros(output.logits.shape[-1], dtype=torch.bool)
    left_out[unsampled] = True
    log_probs = output.logits[0, :-1].masked_fill(left_out, -1e4).log_softmax(-1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)[response[1:]]
    log_probs = log_probs.gather(1, inputs["input_ids"][0, 1:, None])[:, 0][response[1:]]
    maps = torch.stack(output.attentions)[:, 0].mean(1)[:, response]
    maps = maps[..., inputs["mm_token_type_ids"][0].bool()]
    columns = int(inputs["image_grid_thw"][0, 2]) // 2 if "pixel_values" in inputs else 1
    left = torch.arange(maps.shape[-1]) % columns < columns / 2
    return log_probs, entropy, maps.sum(-1).T, maps[..., left].sum(-1).T


def masked(inputs, settings: BlindSettings):
    """Inputs with the patches of the one image set to what the processor makes of black: -mean / std of CLIP."""
    seed = response_seed(inputs["input_ids"][0], settings.seed)
    chosen = masked_patches(len(inputs["pixel_values"]), seed, settings, merge_size=2)
    pixels = inputs["pixel_values"].clone().view(len(chosen), 3, -1)
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    pixels[chosen] = (-mean / std)[:, None].expand(-1, pixels.shape[-1])
    return {**inputs, "pixel_values": pixels.flatten(1)}


def policy_loss(log_probs, i):
    """PPO's, clipped to 1 +- 0.2, and at 3 times a negative advantage."""
    advantage = torch.tensor(ROLLOUT["advantage"](i))
    ratio = (log_probs - ROLLOUT["old_log_prob"](i, torch.arange(len(log_probs)))).exp()
    loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2))
    return torch.minimum(loss, -3.0 * advantage) if advantage < 0 else loss


def reference(tiny_world, rows, mode, weights):  # noqa: F811
    """Gradients, the whole loss, and each weighted term."""
    import pandas as pd
    from PIL import Image
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    processor = AutoProcessor.from_pretrained(tiny_world / "base")
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_world / "base", attn_implementation="eager").train()
    # What a rollout never samples; the way of this mode has fused kernels, which keep no logits to take it from.
    pads = processor.tokenizer.convert_tokens_to_ids(["<|image_pad|>", "<|video_pad|>"])
    unsampled = (
        [] if mode == "token-mean" else [*pads, *range(len(processor.tokenizer), model.config.text_config.vocab_size)]
    )
    of_tokens, looks, shares = {name: [] for name in ("policy", "papo", "double_entropy")}, [], []
    for i, (_, row) in enumerate(pd.read_parquet(rows).iterrows()):
        inputs, response = chat_inputs(processor, row, Image)
        log_probs, entropy, masses, left_masses = read(model, inputs, response, unsampled)
        of_tokens["policy"].append(policy_loss(log_probs, i))
        zero, looks_here, share_here = torch.zeros_like(log_probs), torch.zeros(()), torch.zeros(())
        papo, double_entropy = zero, zero
        if "pixel_values" in inputs:
            blind, blind_entropy, *_ = read(model, masked(inputs, BlindSettings()), response, unsampled)
            d = blind - log_probs
            papo, double_entropy = -(d.exp() - d - 1), 0.5 * entropy + blind_entropy
            if ROLLOUT["right"](i):
                looks_here = -masses.mean(0).log().mean()
                share_here = -(left_masses.sum(0) / masses.sum(0)).log().mean()
        of_tokens["papo"].append(papo)
        of_tokens["double_entropy"].append(double_entropy)
        looks.append(looks_here)
        shares.append(share_here)
    means = {name: mean(found, mode) for name, found in of_tokens.items()}
    means |= {"looking": sum(looks) / ROWS, "evidence": sum(shares) / ROWS}
    terms = {name: weight * means[name] for name, weight in weights.items()}
    loss = means["policy"] + sum(terms.values())
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return gradients, float(loss), {f"actor/loss_{name}": float(term) for name, term in terms.items()}


def mean(of_rows, mode):
    if mode == "token-mean":
        return torch.cat(of_rows).mean()
    return torch.stack([row.mean() for row in of_rows]).mean()


WEIGHTS = {"papo": PAPO, "double_entropy": ENTROPY, "looking": LOOKING, "evidence": EVIDENCE}


@pytest.fixture(scope="module")
def references(tiny_world, rows):  # noqa: F811
    return {mode: reference(tiny_world, rows, mode, WEIGHTS) for mode in ("token-mean", "seq-mean-token-mean")}


# The other ways of running are those of the guided loss, test_guided_gradients.py.
BESIDES = [pytest.param(way, marks=() if "packed" in way else pytest.mark.long) for way in WAYS]


@pytest.mark.e2e
@pytest.mark.parametrize("way", BESIDES)
def test_two_ranks_equal_one_plain_process(way, tiny_world, rows, references, tmp_path):  # noqa: F811
    mode, overrides = WAYS[way]
    engine = engine_run(tiny_world, rows, tmp_path / "two.pt", mode, LOSSES, *overrides)
    gradients, loss, terms = references[mode]
    assert engine["loss"] == pytest.approx(loss, rel=1e-5)
    assert engine["terms"] == pytest.approx(terms, rel=1e-4)
    assert engine["gradients"].keys() == gradients.keys()
    assert_equal(engine["gradients"], gradients)


@pytest.mark.e2e
@pytest.mark.parametrize("term", WEIGHTS)
def test_no_term_is_negligible_here(term, tiny_world, rows, references):  # noqa: F811
    without = {name: weight for name, weight in WEIGHTS.items() if name != term}
    mode = "seq-mean-token-mean"
    others, whole = reference(tiny_world, rows, mode, without)[0], references[mode][0]
    moved = [name for name in others if (others[name] - whole[name]).norm() > 1e-2 * others[name].norm()]
    assert any("q_proj" in name for name in moved)
