"""Models, inputs and steps that benchmarks time: plain, with span masses recorded, and with eager attention maps."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median, quantiles
from time import process_time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# The ways a step can be run. "eager" is how attention is had without span mass: whole maps, kept for the backward pass.
VARIANTS: tuple[str, ...] = ("plain", "recording", "eager")


@dataclass(frozen=True)
class Case:
    """A model, a batch for it, and the queries whose masses its steps need."""

    name: str
    model: Any  # of transformers, with a decoder `model` and an output layer `lm_head`
    inputs: dict[str, Tensor]
    roles: Tensor  # int8 (B, T)
    guided_positions: Tensor  # int64 (B, Q)
    response_positions: Tensor  # int64 (B, Q)
    attention: str = "sdpa"
    head_chunk: int | None = None  # tokens of the output layer at a time, recomputed in the backward pass; None: all


Made = Mapping[str, Callable[[str], Case]]  # a benchmark's cases by name, each made on a device


def options_of(description: str | None, made: Made) -> argparse.ArgumentParser:
    """The options of a benchmark on a CPU: cases, repeats, threads."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=made, action="append", help="may be repeated (default: all)")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    return parser


def begin(options: argparse.Namespace) -> None:
    """Sets the threads, and prints what was measured with."""
    import torch

    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads, {options.repeats} repeats, processor seconds")


def alternate(steps: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Processor seconds of each step and repeat; the steps take turns, there and back, after a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 1):  # the first is a warm-up
        for name in [*steps] if repeat % 2 else reversed([*steps]):
            start = process_time()
            steps[name]()
            if repeat:
                seconds[name].append(process_time() - start)
    return seconds


def ratio_to(plain: Sequence[float], spent: Sequence[float], digits: int = 3) -> str:
    """The ratios of two steps' seconds, repeat by repeat, as text: median and quartiles."""
    ratios = [a / b for a, b in zip(spent, plain, strict=True)]
    low, _, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return f"ratio {median(ratios):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def sft_step(case: Case, variant: str) -> None:
    """Forward, loss and backward; masses of the queries of the guided loss only."""
    from avar_rl.guidance import GuidanceConfig, guidance_terms

    log_probs, masses = forward(case, variant, case.guided_positions)
    loss = log_probs.neg().mean()
    if masses is not None:
        terms = guidance_terms(masses, case.guided_positions, case.roles, GuidanceConfig())
        loss = loss + 0.15 * terms.enhance_N.mean() + 0.15 * terms.suppress_N.mean()
    loss.backward()
    loss.item()  # waits for the device
    case.model.zero_grad()


def old_log_probs(case: Case, variant: str) -> None:
    """Forward without gradients; masses of all response tokens."""
    import torch

    with torch.no_grad():
        log_probs, masses = forward(case, variant, case.response_positions)
        total = log_probs.sum() if masses is None else log_probs.sum() + masses.sum()
    total.item()


STEPS: dict[str, Callable[[Case, str], None]] = {"guided SFT step": sft_step, "old log-probs": old_log_probs}


def blinded(case: Case) -> Case:
    """The case with the images of a blind pass, masked as a recipe's defaults mask them; without images as it is."""
    from avar_rl.blind import BlindSettings, PatchFormat, mask_pixels, response_seed

    if "pixel_values" not in case.inputs:
        return case
    settings, ids_BT = BlindSettings(), case.inputs["input_ids"]
    pixels = mask_pixels(
        case.inputs["pixel_values"],
        case.inputs["image_grid_thw"],
        [response_seed(ids_T, settings.seed) for ids_T in ids_BT],
        settings,
        PatchFormat(black=(-1.8, -1.75, -1.48), merge_size=2),
        images_per_row=[1] * len(ids_BT),
    )
    return replace(case, inputs=case.inputs | {"pixel_values": pixels})


def forward(case: Case, variant: str, positions: Tensor):
    """Log-probability of every next token (B, T - 1, 1), and the masses (L, B, S, H, Q) at `positions` unless plain."""
    from avar_rl.attention.recorder import record_span_mass
    from avar_rl.attention.roles import role_spans
    from avar_rl.guidance import GUIDED_ROLES

    case.model.set_attn_implementation("eager" if variant == "eager" else case.attention)
    spans_BST = role_spans(case.roles, GUIDED_ROLES)
    if variant == "recording":
        with record_span_mass(case.model, spans_BST, query_positions=positions) as record:
            return log_probs_of(case, run_decoder(case).last_hidden_state), record.stack()
    output = run_decoder(case, output_attentions=variant == "eager")
    masses = map_masses(output, spans_BST, positions) if variant == "eager" else None
    return log_probs_of(case, output.last_hidden_state), masses


def run_decoder(case: Case, **kwargs):
    return case.model.model(**case.inputs, use_cache=False, **kwargs)


def log_probs_of(case: Case, hidden_BTD):
    import torch
    from torch.utils.checkpoint import checkpoint

    def head(hidden, label):
        return case.model.lm_head(hidden).float().log_softmax(-1).gather(-1, label)

    hidden, labels = hidden_BTD[:, :-1], case.inputs["input_ids"][:, 1:, None]
    if case.head_chunk is None:
        return head(hidden, labels)
    chunks = zip(hidden.split(case.head_chunk, 1), labels.split(case.head_chunk, 1), strict=True)
    return torch.cat([checkpoint(head, *chunk, use_reentrant=False) for chunk in chunks], dim=1)


def map_masses(output, spans_BST, positions_BQ):
    """From whole attention maps (B, H, T, T) per layer, as one does without span mass. No position may be -1."""
    import torch

    masses = []
    for map_BHTT in output.attentions:
        B, H, T, _ = map_BHTT.shape
        wanted = map_BHTT.gather(2, positions_BQ[:, None, :, None].expand(B, H, -1, T))
        masses.append(torch.einsum("bhqk,bsk->bshq", wanted.float(), spans_BST.float()))
    return torch.stack(masses)


def roles_of(B: int, T: int, spans: Sequence[tuple[int, int, int]], device):
    import torch

    roles = torch.zeros(B, T, dtype=torch.int8, device=device)
    for role, start, stop in spans:
        roles[:, start:stop] = role
    return roles


def miniature(device: str) -> Case:
    """The recipe's own model, 32 x 90 tokens: system 9, image 16 (112 x 112 pixels), question 12, response 40."""
    import torch

    from avar_rl.attention.roles import Role, query_positions
    from data_tools.miniature.model import MINIATURES, make_model, make_tokenizer

    torch.manual_seed(0)
    B, T = 32, 90
    model: Any = make_model(make_tokenizer(["How many red shapes?"]), 0, MINIATURES["qwen2_5_vl"])
    model.to(device).train()
    model.set_attn_implementation("sdpa")
    config = model.config
    roles = roles_of(
        B, T, [(Role.SYSTEM, 3, 12), (Role.IMAGE, 17, 33), (Role.USER, 34, 46), (Role.RESPONSE, 50, 90)], device
    )
    ids = torch.randint(10, config.text_config.vocab_size, (B, T), device=device)
    ids[:, 16], ids[:, 33] = config.vision_start_token_id, config.vision_end_token_id
    ids[roles == Role.IMAGE] = config.image_token_id
    inputs = dict(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == config.image_token_id).long(),
        pixel_values=torch.randn(B * 64, 1176, device=device),
        image_grid_thw=torch.tensor([[1, 8, 8]] * B, device=device),
    )
    name = f"miniature Qwen2.5-VL: batch {B}, {T} tokens, 4 layers x 4 heads"
    return Case(name, model, inputs, roles, query_positions(roles, "user"), query_positions(roles, "response"))


def text_model(device: str, tokens: int) -> Case:
    """One sequence, half prompt (image of 256 keys, question of 128 tokens), half response."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from avar_rl.attention.roles import Role, query_positions

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=4096,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=tokens,
        bos_token_id=None,
        eos_token_id=None,
    )
    model: Any = Qwen2ForCausalLM._from_config(config, attn_implementation="sdpa")
    model.to(device).train()
    half = tokens // 2
    spans = [(Role.SYSTEM, 3, 24), (Role.IMAGE, half - 424, half - 168), (Role.USER, half - 144, half - 16)]
    roles = roles_of(1, tokens, [*spans, (Role.RESPONSE, half, tokens)], device)
    ids = torch.randint(0, 4096, (1, tokens), device=device)
    inputs = dict(input_ids=ids, attention_mask=torch.ones_like(ids))
    name = f"text model: 1 x {tokens:,} tokens, 8 layers x 8 heads x 64; queries: 128 guided, {half:,} response"
    return Case(name, model, inputs, roles, query_positions(roles, "user"), query_positions(roles, "response"))


def vision_model(device: str, tokens: int) -> Case:
    """One sequence like that of `text_model`, with an image of 256 tokens (448 x 448 pixels) and a vision tower."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from avar_rl.attention.roles import Role, query_positions

    torch.manual_seed(0)
    text: Any = dict(vocab_size=4096, hidden_size=512, intermediate_size=1536, num_hidden_layers=8)
    text |= dict(num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=tokens, bos_token_id=None)
    text |= dict(eos_token_id=None, pad_token_id=None)
    text["rope_parameters"] = {"rope_type": "default", "mrope_section": [8, 12, 12], "rope_theta": 1e4}
    vision: Any = dict(depth=4, hidden_size=256, num_heads=4, intermediate_size=512, out_hidden_size=512)
    vision |= dict(spatial_merge_size=2, temporal_patch_size=2, window_size=112, fullatt_block_indexes=[3])
    marks: Any = dict(image_token_id=4095, video_token_id=4094, vision_start_token_id=4093, vision_end_token_id=4092)
    model: Any = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **marks))
    model.to(device).train()
    model.set_attn_implementation("sdpa")
    half = tokens // 2
    spans = [(Role.SYSTEM, 3, 24), (Role.IMAGE, half - 424, half - 168), (Role.USER, half - 144, half - 16)]
    roles = roles_of(1, tokens, [*spans, (Role.RESPONSE, half, tokens)], device)
    ids = torch.randint(0, 4092, (1, tokens), device=device)
    ids[0, half - 425], ids[0, half - 168] = marks["vision_start_token_id"], marks["vision_end_token_id"]
    ids[roles == Role.IMAGE] = marks["image_token_id"]
    inputs = dict(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(roles == Role.IMAGE).long(),
        pixel_values=torch.randn(1024, 1176, device=device),
        image_grid_thw=torch.tensor([[1, 32, 32]], device=device),
    )
    name = f"Qwen2.5-VL: 1 x {tokens:,} tokens, 256 of an image; 8 layers x 8 heads x 64, vision tower of 4 x 256"
    return Case(name, model, inputs, roles, query_positions(roles, "user"), query_positions(roles, "response"))
