"""What recording span masses costs, printed from one run: `python -m benchmarks.recording [--repeats 7] [--threads 1]`.

Two ratios, medians over repeats in which both variants alternate, at two sizes:
  guided SFT step / plain SFT step          forward, loss and backward; rows of the guided loss only
  old log-probs with masses / without       forward under no_grad; rows are all response tokens
(a) the miniature Qwen2.5-VL (image and text); (b) a text model of 8 layers × 8 heads × 64 with 2,048 tokens.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import median
from time import perf_counter, process_time


@dataclass(frozen=True)
class Case:
    name: str
    model: object
    inputs: dict
    roles: object  # int8 (B, T)
    guided_rows: object  # int64 (B, R)
    response_rows: object


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--case", choices=["miniature", "text", "both"], default="both")
    args = parser.parse_args()

    import torch

    torch.set_num_threads(args.threads)
    clock = "processor" if args.device == "cpu" else "wall-clock"
    print(
        f"torch {torch.__version__}, {args.device}, {args.threads} threads, medians of {args.repeats}, {clock} seconds"
    )
    makers = {"miniature": miniature, "text": text_model}
    for name in makers if args.case == "both" else [args.case]:
        case = makers[name](args.device)
        print(case.name)
        report("guided SFT step", case, sft_step, args.repeats)
        report("old log-probs", case, old_log_probs, args.repeats)


def report(what: str, case: Case, run, repeats: int) -> None:
    # On a CPU, processor time: what others do on the machine then hardly shows.
    clock = process_time if case.inputs["input_ids"].device.type == "cpu" else perf_counter
    seconds = {False: [], True: []}
    for repeat in range(repeats + 1):  # the first is a warm-up
        for record in (False, True) if repeat % 2 else (True, False):
            start = clock()
            run(case, record)
            if repeat:
                seconds[record].append(clock() - start)
    plain, recorded = median(seconds[False]), median(seconds[True])
    print(f"  {what:16} plain {plain:7.3f} s   recording {recorded:7.3f} s   ratio {recorded / plain:.3f}", flush=True)


def sft_step(case: Case, record: bool) -> None:
    from avar_rl.guidance import GuidanceConfig, guidance_terms

    with recording(case, case.guided_rows) if record else nullcontext() as masses:
        loss = log_probs(case).neg().mean()
    if record:
        terms = guidance_terms(masses.stack(), case.guided_rows, case.roles, GuidanceConfig())
        loss = loss + 0.15 * terms.enhance_N.mean() + 0.15 * terms.suppress_N.mean()
    loss.backward()
    loss.item()  # waits for the device
    case.model.zero_grad()


def old_log_probs(case: Case, record: bool) -> None:
    import torch

    with torch.no_grad(), recording(case, case.response_rows) if record else nullcontext() as masses:
        total = log_probs(case).sum()
    if record:
        total = total + masses.stack().sum()
    total.item()


def recording(case: Case, rows):
    from avar_rl.attention import record_span_mass
    from avar_rl.guidance import GUIDED_ROLES
    from avar_rl.spans import role_spans

    return record_span_mass(case.model, role_spans(case.roles, GUIDED_ROLES), rows=rows)


def log_probs(case: Case):
    """(B, T - 1), the log-probability of every next token."""
    logits = case.model(**case.inputs, use_cache=False).logits[:, :-1].float()
    return logits.log_softmax(-1).gather(-1, case.inputs["input_ids"][:, 1:, None])


def roles_of(B: int, T: int, spans: list[tuple[int, int, int]], device):
    import torch

    roles = torch.zeros(B, T, dtype=torch.int8, device=device)
    for role, start, stop in spans:
        roles[:, start:stop] = role
    return roles


def miniature(device: str) -> Case:
    """0.9M parameters, batch 32 of 90 tokens: system 9, image 16 (112 × 112 pixels), question 12, response 40."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from avar_rl.spans import Role, query_rows

    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config=dict(
            vocab_size=512,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            bos_token_id=None,
            eos_token_id=2,
            pad_token_id=0,
            rope_parameters={"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0},
        ),
        vision_config=dict(
            depth=2,
            hidden_size=64,
            intermediate_size=128,
            num_heads=4,
            out_hidden_size=128,
            patch_size=14,
            spatial_merge_size=2,
            temporal_patch_size=2,
            window_size=112,
            fullatt_block_indexes=[1],
        ),
        image_token_id=5,
        video_token_id=6,
        vision_start_token_id=3,
        vision_end_token_id=4,
    )
    B, T = 32, 90
    model = Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation="sdpa").to(device).train()
    roles = roles_of(
        B, T, [(Role.SYSTEM, 3, 12), (Role.IMAGE, 17, 33), (Role.USER, 34, 46), (Role.RESPONSE, 50, 90)], device
    )
    ids = torch.randint(10, 512, (B, T), device=device)
    ids[:, 16], ids[:, 33] = 3, 4
    ids[roles == Role.IMAGE] = 5
    inputs = dict(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == 5).long(),
        pixel_values=torch.randn(B * 64, 1176, device=device),
        image_grid_thw=torch.tensor([[1, 8, 8]] * B, device=device),
    )
    name = f"(a) miniature Qwen2.5-VL: batch {B}, {T} tokens, 4 layers × 4 heads"
    return Case(name, model, inputs, roles, query_rows(roles, "user"), query_rows(roles, "response"))


def text_model(device: str) -> Case:
    """One sequence of 1,024 prompt and 1,024 response tokens; image of 256 keys, question of 128 rows."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from avar_rl.spans import Role, query_rows

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=4096,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = Qwen2ForCausalLM._from_config(config, attn_implementation="sdpa").to(device).train()
    spans = [(Role.SYSTEM, 3, 24), (Role.IMAGE, 600, 856), (Role.USER, 880, 1008), (Role.RESPONSE, 1024, 2048)]
    roles = roles_of(1, 2048, spans, device)
    ids = torch.randint(0, 4096, (1, 2048), device=device)
    inputs = dict(input_ids=ids, attention_mask=torch.ones_like(ids))
    name = "(b) text model: 1 × 2,048 tokens, 8 layers × 8 heads × 64, hidden 512; rows: 128 guided, 1,024 response"
    return Case(name, model, inputs, roles, query_rows(roles, "user"), query_rows(roles, "response"))


if __name__ == "__main__":
    main()
