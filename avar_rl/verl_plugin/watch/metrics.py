"""The curves of a step's rewards. Names (PART: a reward's name; STAT: mean, std, min, max):

reward/PART, reward/total            mean value, gated but unweighted; mean of the sum that is trained on
reward_raw/PART/STAT                 as the function returned it: before gate and weight
reward_weighted/PART/STAT            as it enters the total: behind the gate, times the weight; also for `total`
reward_rate/PART/gated               share of responses whose gate was closed
reward_rate/PART/not_applicable      share of responses for which it returned None (for accuracy: undecided)
reward_rate/undecided, failed        share of responses with an undecided accuracy; with a reward that failed (masked)
reward_rate/missing                  share of the responses asked for that did not arrive (counted by the trainer)
reward_check/PART_vs_length          Pearson correlation of the raw value with the response's length in tokens,
reward_check/PART_vs_accuracy        and with accuracy: reward hacking shows there. Absent where one has no spread.
reward/groups_without_accuracy_spread  there the other parts alone decide
reward/PART_of_correct               mean raw value of an attention reward or any gated one, right answers only
attention/image_mass, system_mass    mean over response tokens and layers; _early, _middle, _late: thirds of the layers
blind/dependence                     log-probability that a response token loses by masked images, in nats: mean over
                                     a response, then over the responses to questions with an image; _early, _middle,
                                     _late: thirds of the response
blind/dependence_vs_attention        Pearson correlation of a token's dependence with its image mass (mean of layers),
                                     over all these tokens; absent without masses
blind/not_applicable                 share of responses without a dependence: no image in the question
token_weight/NAME/mean               mean of a token weight over the response tokens, before it is normalised
token_weight/NAME/share              share of response tokens that it gives a factor above 0
token_weight/mean, share             the same of the factors that scale the advantages: all weights, normalised
token_weight/failed                  share of responses on which one failed (masked)
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from avar_rl.verl_plugin.scored_batch import ScoredBatch, ScoredResponse, undecided
from rewards.weigh import Weighed

THIRDS = ("early", "middle", "late")


def reward_metrics(scored: ScoredBatch) -> dict[str, float]:
    """All curves of one step by the names above. Masked responses count in the rates, the attention masses and the
    dependences only."""
    judged = [response for response in scored.responses if not response.masked]
    metrics = _rates(scored.responses)
    if not judged:
        return metrics
    for name, weight in scored.weights.items():
        metrics |= _part_metrics(name, weight, name in scored.gates, judged)
    totals = np.array([response.total for response in judged])
    metrics |= {"reward/total": float(totals.mean()), **_statistics("reward_weighted/total", totals)}
    if "accuracy" in scored.weights:
        spreads = [{r.accuracy for r in group if not r.masked} for group in scored.groups().values()]
        metrics["reward/groups_without_accuracy_spread"] = float(np.mean([len(values) < 2 for values in spreads]))
    metrics |= _mass_metrics(scored.responses, scored.layers)
    return metrics | _blind_metrics(scored.responses) if scored.blind else metrics


def _rates(responses: Sequence[ScoredResponse]) -> dict[str, float]:
    rates = {"undecided": [undecided(r.values) for r in responses], "failed": [bool(r.error) for r in responses]}
    return {f"reward_rate/{name}": float(np.mean(flags)) for name, flags in rates.items()}


def _part_metrics(name: str, weight: float, gated: bool, judged: Sequence[ScoredResponse]) -> dict[str, float]:
    weighted = np.array([response.score.weighted[name] for response in judged])
    scored = [(response, raw) for response in judged if (raw := response.values.raw.get(name)) is not None]
    raws = np.array([raw for _, raw in scored])
    values = np.array([0.0 if _closed(name, r) else r.values.raw.get(name) or 0.0 for r in judged])
    unasked = sum(not _closed(name, r) and r.values.raw.get(name) is None for r in judged)
    metrics = {f"reward/{name}": float(values.mean()), f"reward_rate/{name}/not_applicable": unasked / len(judged)}
    metrics |= _statistics(f"reward_weighted/{name}", weighted) | _statistics(f"reward_raw/{name}", raws)
    if gated:
        metrics[f"reward_rate/{name}/gated"] = float(np.mean([_closed(name, response) for response in judged]))
        right = [raw for response, raw in scored if not _closed(name, response)]
        metrics |= {f"reward/{name}_of_correct": float(np.mean(right))} if right else {}
    lengths = np.array([len(response.token_ids_T) for response, _ in scored], dtype=float)
    return metrics | _correlations(name, raws, lengths, [response.accuracy for response, _ in scored])


def _closed(name: str, response: ScoredResponse) -> bool:
    return name in response.values.closed


def _correlations(name: str, raw: np.ndarray, lengths: np.ndarray, accuracies: list[float | None]) -> dict[str, float]:
    found = {f"reward_check/{name}_vs_length": correlation(raw, lengths)}
    if name != "accuracy" and accuracies and None not in accuracies:
        found[f"reward_check/{name}_vs_accuracy"] = correlation(raw, np.array(accuracies))
    return {key: value for key, value in found.items() if value is not None}


def correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    """Pearson's correlation of two samples of one length; None where either has no spread."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def _statistics(prefix: str, values: np.ndarray) -> dict[str, float]:
    if not len(values):
        return {}
    found = {"mean": values.mean(), "std": values.std(), "min": values.min(), "max": values.max()}
    return {f"{prefix}/{name}": float(value) for name, value in found.items()}


def _mass_metrics(responses: Sequence[ScoredResponse], layers: int) -> dict[str, float]:
    """Means over the responses that have tokens; a response of no tokens has no attention."""
    masses = [r.masses for r in responses if r.masses is not None and len(r.masses.image_TL)]
    if not layers or not masses:
        return {}
    metrics = {}
    for name, of_responses in (
        ("image_mass", [m.image_TL for m in masses]),
        ("system_mass", [m.system_TL for m in masses]),
    ):
        mean_L = np.mean([mass_TL.mean(0).double().numpy() for mass_TL in of_responses], axis=0)
        metrics[f"attention/{name}"] = float(mean_L.mean())
        for part, chunk in zip(THIRDS, np.array_split(mean_L, 3), strict=True):
            if len(chunk):
                metrics[f"attention/{name}_{part}"] = float(chunk.mean())
    return metrics


def _blind_metrics(responses: Sequence[ScoredResponse]) -> dict[str, float]:
    """Each response counts alike, however long; a third of a response of one or two tokens may be empty."""
    found = {"blind/not_applicable": float(np.mean([response.dependence_T is None for response in responses]))}
    measured = [(r.masses, d_T.double().numpy()) for r in responses if (d_T := r.dependence_T) is not None and len(d_T)]
    if not measured:
        return found
    found["blind/dependence"] = float(np.mean([of_response.mean() for _, of_response in measured]))
    thirds = zip(*(np.array_split(of_response, 3) for _, of_response in measured), strict=True)
    for name, chunks in zip(THIRDS, thirds, strict=True):
        if means := [chunk.mean() for chunk in chunks if len(chunk)]:
            found[f"blind/dependence_{name}"] = float(np.mean(means))
    looked = [(m.image_TL.double().mean(1).numpy(), of_response) for m, of_response in measured if m is not None]
    if looked:
        attention, dependence = (np.concatenate(column) for column in zip(*looked, strict=True))
        value = correlation(attention, dependence)
        found |= {} if value is None else {"blind/dependence_vs_attention": value}
    return found


def weight_metrics(weighed: Weighed) -> dict[str, float]:
    """The curves of a step's token weights by the names above, of the responses that are not masked."""
    if not weighed.errors:
        return {}
    metrics = {"token_weight/failed": float(np.mean([bool(error) for error in weighed.errors]))}
    for prefix, columns in {"token_weight": weighed.factors, **_by_weight(weighed)}.items():
        values = np.concatenate([np.zeros(0), *(factors_T.numpy() for factors_T in columns if factors_T is not None)])
        if len(values):
            metrics |= {f"{prefix}/mean": float(values.mean()), f"{prefix}/share": float((values > 0).mean())}
    return metrics


def _by_weight(weighed: Weighed) -> dict[str, tuple[Tensor | None, ...]]:
    return {f"token_weight/{name}": columns for name, columns in weighed.returned.items()}
