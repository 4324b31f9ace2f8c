"""The guided loss through verl's FSDP2 engine against an independent single process with eager attention maps.

Two ranks, gradient checkpointing, micro-batches: padded; packed, with dynamic batches and verl's fused kernels (which
return log-probabilities and no logits); Ulysses sequence parallelism; LoRA.
The second half of the rows has no images, which must neither contribute nor dead-lock the ranks. The reference shares
no code with the plug-in: plain transformers, eager maps, the formula.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ALPHA, BETA, EPS = 0.15, 0.3, 1e-6
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rows(tiny_world, tmp_path_factory):
    """8 chat rows: 4 with an image (rank 0), 4 without (rank 1)."""
    import pandas as pd

    table = pd.read_parquet(tiny_world / "data" / "sft_train.parquet")
    has_image = table["images"].map(len) > 0
    table = pd.concat([table[has_image].head(4), table[~has_image].head(4)])
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    table.to_parquet(path)
    return path


def engine_gradients(tiny_world, rows, out, ranks, *overrides):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    command += [
        str(ROOT / "tests/numerics/guided_gradients_worker.py"),
        str(ROOT / "recipes/config/tiny_sft"),
        str(out),
    ]
    command += ["8", f"data.train_files={rows}", f"model.path={tiny_world / 'base'}", "data.num_workers=0"]
    command += ["data.train_batch_size=8", "data.micro_batch_size_per_gpu=2", "trainer.resume_mode=disable"]
    command += [f"trainer.default_local_dir={out.parent / 'checkpoints'}", "trainer.total_training_steps=1", *overrides]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-8000:]
    return torch.load(out)


def reference_gradients(tiny_world, rows, alpha, beta):
    """L_LM (token mean over the batch) + alpha * mean L_enh + beta * mean L_sup, from eager attention maps."""
    import pandas as pd
    from PIL import Image
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    processor = AutoProcessor.from_pretrained(tiny_world / "base")
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_world / "base", attn_implementation="eager").train()
    losses, tokens, enhance, suppress = [], 0, [], []
    for _, row in pd.read_parquet(rows).iterrows():
        inputs, response = chat_inputs(processor, row, Image)
        output = model(**inputs, output_attentions=True)
        log_probs = output.logits[0, :-1].log_softmax(-1).gather(1, inputs["input_ids"][0, 1:, None])[:, 0]
        losses.append(-log_probs[response[1:]].sum())
        tokens += int(response.sum())
        enh, sup = guidance(torch.stack(output.attentions), inputs["input_ids"][0], response, processor.tokenizer)
        enhance.append(enh)
        suppress.append(sup)
    loss = sum(losses) / tokens + alpha * sum(enhance) / 8 + beta * sum(suppress) / 8
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, float(loss)


def chat_inputs(processor, row, image_module):
    """Whole conversation as token ids, and which of them the loss is on: everything after the assistant's header."""
    import io

    images = [image_module.open(io.BytesIO(image["bytes"])).convert("RGB") for image in row["images"]]
    messages = [dict(message) for message in row["messages"]]
    for message in messages:
        parts = message["content"].split("<image>")
        content = [{"type": "text", "text": parts[0]}] if parts[0] else []
        for part in parts[1:]:
            content += [{"type": "image"}] + ([{"type": "text", "text": part}] if part else [])
        message["content"] = content
    lengths = []
    for upto, prompt in ((messages[:-1], True), (messages, False)):
        text = processor.apply_chat_template(upto, add_generation_prompt=prompt, tokenize=False)
        inputs = processor(text=[text], images=images or None, return_tensors="pt")
        lengths.append(inputs["input_ids"].shape[1])
    response = torch.arange(lengths[1]) >= lengths[0]
    return inputs, response


def guidance(maps_LBHTT, ids, response, tokenizer):
    """L_enh and L_sup (arXiv 2603.03825, stage 2) written out with full maps; queries: user text after the image."""
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    pad, vision_end = tokenizer.convert_tokens_to_ids(["<|image_pad|>", "<|vision_end|>"])
    image = ids == pad
    if not image.any():
        return 0.0, 0.0
    starts, ends = (ids == start).nonzero()[:, 0], (ids == end).nonzero()[:, 0]
    header = len(tokenizer("system\n")["input_ids"])
    system = torch.zeros_like(image)
    system[starts[0] + 1 + header : ends[0]] = True
    user = torch.zeros_like(image)
    user[(ids == vision_end).nonzero()[-1, 0] + 1 : ends[1]] = True
    maps = maps_LBHTT[:, 0][:, :, user]  # (L, H, Q, T)
    pair_mean = lambda keys: maps[..., keys].sum(-1).sum(-1) / (int(user.sum()) * int(keys.sum()))  # noqa: E731
    return -pair_mean(image).log().mean(), (pair_mean(system) + EPS).log().mean()


@pytest.fixture(scope="module")
def reference(tiny_world, rows):
    return reference_gradients(tiny_world, rows, ALPHA, BETA)


PACKED = ["model.use_remove_padding=true"]
DYNAMIC = ["data.use_dynamic_bsz=true", "data.max_token_len_per_gpu=256"]
FUSED = ["model.use_fused_kernels=true", "model.fused_kernel_options.impl_backend=torch"]
WAYS = {
    "padded": ["model.use_remove_padding=false"],
    "packed, dynamic batches, fused kernels": [*PACKED, *DYNAMIC, *FUSED],
    "ulysses": [*PACKED, "engine.ulysses_sequence_parallel_size=2"],
}


def two_ranks(tiny_world, rows, out, *overrides):
    # without the recipe's floor, near which the system's means are, and which the reference has not
    guidance_overrides = [f"avar.guidance.alpha={ALPHA}", f"avar.guidance.beta={BETA}", "avar.guidance.floor=0"]
    overrides = [
        "trainer.n_gpus_per_node=2",
        "model.enable_gradient_checkpointing=true",
        *guidance_overrides,
        *overrides,
    ]
    return engine_gradients(tiny_world, rows, out, 2, *overrides)


def assert_equal(gradients, expected):
    for name, wanted in expected.items():
        difference = (gradients[name] - wanted).norm()
        # measured: at most 2e-6 of the norm; parameters whose gradient is rounding noise are compared absolutely
        assert difference <= 1e-4 * wanted.norm() + 1e-7, name


@pytest.mark.e2e
@pytest.mark.parametrize("way", WAYS)
def test_two_ranks_equal_one_plain_process(way, tiny_world, rows, reference, tmp_path):
    engine = two_ranks(tiny_world, rows, tmp_path / "two.pt", *WAYS[way])
    expected, loss = reference
    assert engine["loss"] == pytest.approx(loss, rel=1e-5)
    assert engine["gradients"].keys() == expected.keys()
    assert_equal(engine["gradients"], expected)


@pytest.mark.e2e
@pytest.mark.long
def test_lora(tiny_world, rows, reference, tmp_path):
    """W + scale · B A with B = 0 at the start: dL/dB = scale · dL/dW Aᵀ."""
    lora = ["model.lora_rank=4", "model.lora_alpha=8", "model.target_modules=[q_proj,k_proj]"]
    engine = two_ranks(tiny_world, rows, tmp_path / "lora.pt", *lora)
    expected = {}
    for name, lora_A in engine["lora_A"].items():
        weight = name.removeprefix("base_model.model.").replace(".lora_A.default", "")
        expected[name.replace("lora_A", "lora_B")] = 8 / 4 * reference[0][weight] @ lora_A.T
    assert len(expected) > 4 and any(float(gradient.norm()) > 1e-4 for gradient in expected.values())
    assert all("lora_" in name for name in engine["gradients"])  # the frozen weights get none
    assert_equal(engine["gradients"], expected)


@pytest.mark.e2e
def test_the_guided_part_is_not_negligible_here(tiny_world, rows, reference):
    plain, _ = reference_gradients(tiny_world, rows, 0.0, 0.0)
    moved = [name for name in plain if (plain[name] - reference[0][name]).norm() > 1e-2 * plain[name].norm()]
    assert any("q_proj" in name for name in moved)
