"""What loss terms cost an update on a CPU, from one run: `python -m benchmarks.actor_losses [--case text-2048 …]`.

Ratios of an update (forward, policy loss with a term, backward; no optimiser) to the same update without terms:
  evidence        masses of all response tokens on three spans, with gradients
  papo            a second forward and backward with masked images
  papo + entropy  the same, and the entropies of both passes (double_entropy)
The variants alternate; seconds are processor time. Given are the median, and of the ratios repeat by repeat the median
and the quartiles. The text model has no images: its second pass sees the same tokens again, which costs as much.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

from benchmarks import cases

CASES = {"miniature": cases.miniature, "text-2048": partial(cases.text_model, tokens=2048)}
VARIANTS: dict[str, dict[str, float]] = {
    "plain": {},
    "evidence": {"evidence": 0.1},
    "papo": {"papo": 0.01},
    "papo + entropy": {"papo": 0.01, "double_entropy": 0.03},
}


def main() -> None:
    options = cases.options_of(__doc__, CASES).parse_args()
    cases.begin(options)
    for name in options.case or CASES:
        case = CASES[name]("cpu")
        print(case.name, flush=True)
        report(case, options.repeats)


def report(case: cases.Case, repeats: int) -> None:
    seconds = cases.alternate({name: partial(update, case, losses) for name, losses in VARIANTS.items()}, repeats)
    for name, spent in seconds.items():
        line = f"  {name:16} {median(spent):7.3f} s"
        print(line if name == "plain" else f"{line}   {cases.ratio_to(seconds['plain'], spent)}", flush=True)


def update(case: cases.Case, losses: dict[str, float]) -> None:
    """Forward, policy loss and terms, backward."""
    import torch

    from rewards.losses import ActorLossSet, parse_losses
    from rewards.sample import LossBatch

    terms = ActorLossSet(parse_losses(losses))
    entropy = "entropy" in terms.needs
    tokens, masses = measured(case, entropy, record="region" in terms.needs)
    blind = measured(cases.blinded(case), entropy)[0] if "blind" in terms.needs else {}
    log_probs_BQ = tokens["log_probs_NT"]
    old_BQ, all_B = log_probs_BQ.detach(), torch.ones(len(log_probs_BQ), dtype=torch.bool)
    mask_BQ = torch.ones_like(old_BQ, dtype=torch.bool)
    batch = LossBatch(mask_BQ, log_probs_BQ, old_BQ, torch.ones_like(old_BQ), all_B, all_B, all_B)
    given: dict[str, Any] = {f"blind_{name}": value for name, value in blind.items()} | tokens | masses
    values = terms.values(replace(batch, **given))
    loss = -(log_probs_BQ - old_BQ).exp().mean()
    for name, value in values.items():
        loss = loss + terms.weights[name] * value.mean()
    loss.backward()
    loss.item()
    case.model.zero_grad()


def measured(case: cases.Case, entropy: bool, record: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    """Log-probabilities and entropies of the response's tokens, and masses on image, system and half of the image."""
    import torch

    from avar_rl.attention.recorder import record_span_mass
    from avar_rl.attention.roles import role_spans
    from avar_rl.guidance import GUIDED_ROLES

    masses: dict[str, Any] = {}
    if record:
        spans_BST = role_spans(case.roles, GUIDED_ROLES)
        half_B1T = spans_BST[:, :1] & (torch.arange(spans_BST.shape[2]) % 2 == 0)
        spans_BST = torch.cat([spans_BST, half_B1T], dim=1)
        with record_span_mass(case.model, spans_BST, query_positions=case.response_positions) as recorded:
            hidden_BTD = cases.run_decoder(case).last_hidden_state
        mean_SBQL = recorded.stack().mean(3).permute(2, 1, 3, 0)
        masses = dict(zip(("image_mass_NTL", "system_mass_NTL", "region_mass_NTL"), mean_SBQL, strict=True))
    else:
        hidden_BTD = cases.run_decoder(case).last_hidden_state
    logits_BTV = case.model.lm_head(hidden_BTD).float()
    before_BQ = case.response_positions - 1
    row_B1 = torch.arange(len(before_BQ))[:, None]
    logits_BQV = logits_BTV[row_B1, before_BQ]
    labels_BQ1 = case.inputs["input_ids"][row_B1, case.response_positions][..., None]
    tokens = {"log_probs_NT": logits_BQV.log_softmax(-1).gather(-1, labels_BQ1)[..., 0]}
    if entropy:
        tokens["entropy_NT"] = logits_BQV.logsumexp(-1) - (logits_BQV.softmax(-1) * logits_BQV).sum(-1)
    return tokens, masses


if __name__ == "__main__":
    main()
