"""Models, inputs and steps that benchmarks time: plain, with span masses recorded, and with eager attention maps."""

from __future__ import annotations

from dataclasses import dataclass

# The ways a step can be run. "eager" is how attention is had without span mass: whole maps, kept for the backward pass.
VARIANTS = ("plain", "recording", "eager")


@dataclass(frozen=True)
class Case:
    name: str
    model: object
    inputs: dict
    roles: object  # int8 (B, T)
    guided_rows: object  # int64 (B, R)
    response_rows: object
    attention: str = "sdpa"
    head_chunk: int | None = None  # tokens of the output layer at a time, recomputed in the backward pass; None: all


def sft_step(case: Case, variant: str) -> None:
    """Forward, loss and backward; masses at the rows of the guided loss only."""
    from avar_rl.guidance import GuidanceConfig, guidance_terms

    log_probs, masses = forward(case, variant, case.guided_rows)
    loss = log_probs.neg().mean()
    if masses is not None:
        terms = guidance_terms(masses, case.guided_rows, case.roles, GuidanceConfig())
        loss = loss + 0.15 * terms.enhance_N.mean() + 0.15 * terms.suppress_N.mean()
    loss.backward()
    loss.item()  # waits for the device
    case.model.zero_grad()


def old_log_probs(case: Case, variant: str) -> None:
    """Forward without gradients; masses at all response tokens."""
    import torch

    with torch.no_grad():
        log_probs, masses = forward(case, variant, case.response_rows)
        total = log_probs.sum() if masses is None else log_probs.sum() + masses.sum()
    total.item()


STEPS = {"guided SFT step": sft_step, "old log-probs": old_log_probs}


def forward(case: Case, variant: str, rows):
    """Log-probability of every next token (B, T - 1, 1), and the masses (L, B, S, H, R) at `rows` unless plain."""
    from avar_rl.attention.recorder import record_span_mass
    from avar_rl.attention.roles import role_spans
    from avar_rl.guidance import GUIDED_ROLES

    case.model.set_attn_implementation("eager" if variant == "eager" else case.attention)
    spans_BST = role_spans(case.roles, GUIDED_ROLES)
    if variant == "recording":
        with record_span_mass(case.model, spans_BST, rows=rows) as record:
            return log_probs_of(case, run_decoder(case).last_hidden_state), record.stack()
    output = run_decoder(case, output_attentions=variant == "eager")
    masses = map_masses(output, spans_BST, rows) if variant == "eager" else None
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


def map_masses(output, spans_BST, rows_BR):
    """From whole attention maps (B, H, T, T) a layer, as one does without span mass. All rows exist (none is -1)."""
    import torch

    masses = []
    for map_BHTT in output.attentions:
        B, H, T, _ = map_BHTT.shape
        wanted = map_BHTT.gather(2, rows_BR[:, None, :, None].expand(B, H, -1, T))
        masses.append(torch.einsum("bhrk,bsk->bshr", wanted.float(), spans_BST.float()))
    return torch.stack(masses)


def roles_of(B: int, T: int, spans: list[tuple[int, int, int]], device):
    import torch

    roles = torch.zeros(B, T, dtype=torch.int8, device=device)
    for role, start, stop in spans:
        roles[:, start:stop] = role
    return roles


def miniature(device: str) -> Case:
    """The recipe's own model, 32 x 90 tokens: system 9, image 16 (112 x 112 pixels), question 12, response 40."""
    import torch

    from avar_rl.attention.roles import Role, query_rows
    from data_tools.miniature.model import make_model, make_tokenizer

    torch.manual_seed(0)
    B, T = 32, 90
    model = make_model(make_tokenizer(["How many red shapes?"]), seed=0).to(device).train()
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
    return Case(name, model, inputs, roles, query_rows(roles, "user"), query_rows(roles, "response"))


def text_model(device: str, tokens: int) -> Case:
    """One sequence, half prompt (image of 256 keys, question of 128 rows), half response."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from avar_rl.attention.roles import Role, query_rows

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
    model = Qwen2ForCausalLM._from_config(config, attn_implementation="sdpa").to(device).train()
    half = tokens // 2
    spans = [(Role.SYSTEM, 3, 24), (Role.IMAGE, half - 424, half - 168), (Role.USER, half - 144, half - 16)]
    roles = roles_of(1, tokens, [*spans, (Role.RESPONSE, half, tokens)], device)
    ids = torch.randint(0, 4096, (1, tokens), device=device)
    inputs = dict(input_ids=ids, attention_mask=torch.ones_like(ids))
    name = f"text model: 1 x {tokens:,} tokens, 8 layers x 8 heads x 64; rows: 128 guided, {half:,} response"
    return Case(name, model, inputs, roles, query_rows(roles, "user"), query_rows(roles, "response"))
