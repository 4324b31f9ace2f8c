"""Response tokens with and without their image → causal visual dependence, and how attention goes with it.

Attention says where a model looks; dependence, what it loses when the image is masked (module `avar_rl.blind`). A token
may look and not need (its words were settled by the text), or need and look elsewhere (what the image told was written
into other tokens before). So neither is a measure of the other, and the correlation between them is a finding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avar_rl.blind import BlindSettings
from avar_rl.probe.blind_pass import ResponseTokens
from avar_rl.runtime import tables
from avar_rl.runtime.bootstrap import bootstrap, correlations, ranks
from avar_rl.vas import HeadAttention

# Shapes: N samples, K tokens of all responses, R tokens of one response, L layers, M any figures.

PARTS = ("early", "middle", "late")  # thirds of a response
MASSES = {"image_mass": "image mass", "image_mass_before": "image mass of the query before"}
_TITLES = {
    "dependence": "dependence: log p(clean) - log p(blind)",
    **{part: f"dependence, {part} third" for part in PARTS},
    "log_prob": "log p(clean)",
    "blind_log_prob": "log p(blind)",
}


@dataclass(frozen=True)
class Estimate:
    """A figure over `n` samples with its bootstrap interval over them: None for fewer than two samples."""

    n: int
    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Correlation:
    """How one figure goes with another: Pearson's coefficient, and Spearman's (of their ranks).

    Each is None where it does not exist, as where one of the figures is the same everywhere.
    """

    pearson: Estimate | None
    spearman: Estimate | None


@dataclass(frozen=True)
class Points:
    """The points of the correlations: of every token, and of every sample that has VAS."""

    sample_K: NDArray[np.int64]
    dependence_K: NDArray[np.float64]
    masses_KL: dict[str, NDArray[np.float64]]
    vas_N: NDArray[np.float64]
    dependence_N: NDArray[np.float64]


@dataclass(frozen=True)
class Dependence:
    """What a blind pass found.

    points: what the correlations are of.
    applicable_N: of each sample, whether it has an image and a response; the others are in no figure.
    means: over the tokens of a response, then over samples: `dependence`, of the whole and of each of its `PARTS`,
        and `log_prob` and `blind_log_prob`, which it is the difference of.
    masses: for each of `MASSES`, its mean over layers against dependence, over the tokens of all samples.
    masses_L: the same in each layer.
    vas: over samples, VAS of the response against mean dependence; None where no sample has a system turn.
    """

    points: Points
    applicable_N: NDArray[np.bool_]
    means: dict[str, Estimate | None]
    masses: dict[str, Correlation]
    masses_L: dict[str, list[Correlation]]
    vas: Correlation | None


def dependence_figures(heads: HeadAttention, responses: Sequence[ResponseTokens | None]) -> Dependence:
    """Every figure of a blind pass, from what `measure_blind` gives. ValueError: no sample has image and response."""
    there = [found for found in responses if found is not None]
    if not there:
        raise ValueError(
            f"none of {len(responses)} samples has an image and a response, so there is no dependence to measure"
        )
    points = _points(heads, responses)
    values = [found.dependence_R.numpy() for found in there]
    thirds = [_thirds(values_R) for values_R in values]
    means = {
        "dependence": values,
        **{part: [third[place] for third in thirds] for place, part in enumerate(PARTS)},
        "log_prob": [found.log_probs_R.numpy() for found in there],
        "blind_log_prob": [found.blind_log_probs_R.numpy() for found in there],
    }
    against = points.dependence_K, points.sample_K
    by_layer = {name: _correlated(masses_KL, *against) for name, masses_KL in points.masses_KL.items()}
    whole = {name: _correlated(masses.mean(1)[:, None], *against)[0] for name, masses in points.masses_KL.items()}
    vas = _correlated(points.vas_N[:, None], points.dependence_N, np.arange(len(points.vas_N)))[0]
    return Dependence(
        points,
        np.array([found is not None for found in responses]),
        {name: _mean(tokens) for name, tokens in means.items()},
        whole,
        by_layer,
        vas if len(points.vas_N) else None,
    )


def _points(heads: HeadAttention, responses: Sequence[ResponseTokens | None]) -> Points:
    there = [found for found in responses if found is not None]
    sizes = [len(found.ids_R) for found in there]
    vas_N = heads.vas_NLH.mean((1, 2)).tolist()
    measured = [
        (vas_N[place], found.dependence_R.mean().item())
        for place, found in enumerate(responses)
        if found is not None and heads.measured_N[place]
    ]
    points = np.array(measured, dtype=np.float64).reshape(-1, 2)
    return Points(
        np.repeat(np.arange(len(there)), sizes),
        np.concatenate([found.dependence_R.numpy() for found in there]),
        {name: np.concatenate([getattr(found, f"{name}_RL").numpy() for found in there]) for name in MASSES},
        points[:, 0],
        points[:, 1],
    )


def _thirds(values_R: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The values of each third of a response; token t of R belongs to third 3 t // R. A short one may lack some."""
    third_R = 3 * np.arange(len(values_R)) // max(1, len(values_R))
    return [values_R[third_R == part] for part in range(len(PARTS))]


def _mean(values: list[NDArray[np.float64]]) -> Estimate | None:
    """The mean over samples of the mean over tokens; samples without tokens are left out."""
    means_N1 = np.array([tokens.mean() for tokens in values if len(tokens)])[:, None]
    if not len(means_N1):
        return None
    interval = None
    if len(means_N1) > 1:
        low, high = bootstrap(means_N1)
        interval = low.item(), high.item()
    return Estimate(len(means_N1), means_N1.mean().item(), interval)


def _correlated(x_KM, y_K: NDArray[np.float64], cluster_K: NDArray[np.int64]) -> list[Correlation]:
    """Each of M figures against y."""
    if not len(y_K):
        return [Correlation(None, None)] * x_KM.shape[1]
    ranked_KM = np.stack([ranks(x_K) for x_K in x_KM.T], axis=1)
    pearson, spearman = _estimates(x_KM, y_K, cluster_K), _estimates(ranked_KM, ranks(y_K), cluster_K)
    return [Correlation(*pair) for pair in zip(pearson, spearman, strict=True)]


def _estimates(x_KM, y_K, cluster_K) -> list[Estimate | None]:
    found_M, interval = correlations(x_KM, y_K, cluster_K)
    low_M, high_M = interval or (np.full_like(found_M, np.nan),) * 2
    return [
        None if np.isnan(value) else Estimate(int(cluster_K.max()) + 1, value, None if np.isnan(low) else (low, high))
        for value, low, high in zip(found_M.tolist(), low_M.tolist(), high_M.tolist(), strict=True)
    ]


def dependence_json(
    found: Dependence, responses: Sequence[ResponseTokens | None], ids: Sequence[str], blind: BlindSettings, tokenizer
) -> dict[str, Any]:
    """Everything that a blind pass found, ready for JSON; None (null) for what does not exist."""
    return {
        "settings": asdict(blind),
        "samples": int(found.applicable_N.sum()),
        "not_applicable": int((~found.applicable_N).sum()),
        "tokens": len(found.points.dependence_K),
        "means": {name: None if mean is None else asdict(mean) for name, mean in found.means.items()},
        "correlations": {
            name: asdict(whole) | {"per_layer": [asdict(layer) for layer in found.masses_L[name]]}
            for name, whole in found.masses.items()
        }
        | {"vas_of_samples": None if found.vas is None else asdict(found.vas)},
        "per_sample": [
            {"id": name} | ({"dependence": None} if tokens is None else _sample_json(tokens, tokenizer))
            for name, tokens in zip(ids, responses, strict=True)
        ],
    }


def _sample_json(tokens: ResponseTokens, tokenizer) -> dict[str, Any]:
    return {
        "dependence": tokens.dependence_R.mean().item(),
        "tokens": [tokenizer.decode([token]) for token in tokens.ids_R.tolist()],
        "token_dependence": tokens.dependence_R.tolist(),
        **{f"token_{name}": getattr(tokens, f"{name}_RL").mean(1).tolist() for name in MASSES},
    }


def print_dependence(found: Dependence, layers: Sequence[int]) -> None:
    """Prints what a blind pass found: of the model, then of its layers, whose indices `layers` are."""
    screen = tables.console()
    table = tables.table(
        ("measure", "mean", "95 % interval", "samples"),
        text=("measure",),
        title="with masked images: mean over the tokens of a response, then samples, in nats",
    )
    for name, figure in found.means.items():
        cells = ("-", "-", "0") if figure is None else (f"{figure.value:.4g}", _bounds(figure), str(figure.n))
        table.add_row(_TITLES[name], *cells)
    screen.print(table)
    screen.print(_correlation_table(found))
    by_layer = tables.table(
        ("layer", *MASSES.values()), title="by layer: Pearson's correlation with dependence, over tokens"
    )
    for place, layer in enumerate(layers):
        by_layer.add_row(str(layer), *(_cell(found.masses_L[name][place].pearson) for name in MASSES))
    screen.print(by_layer)
    without = int((~found.applicable_N).sum())
    screen.print(f"{len(found.points.dependence_K)} tokens; without image or response: {without} samples")


def _correlation_table(found: Dependence):
    table = tables.table(
        ("dependence with", "over", "Pearson", "Spearman"),
        text=("dependence with",),
        title="correlations, with 95 % intervals over samples",
    )
    for name, title in MASSES.items():
        table.add_row(title, "tokens", _cell(found.masses[name].pearson), _cell(found.masses[name].spearman))
    if found.vas is not None:
        table.add_row("VAS of the response", "samples", _cell(found.vas.pearson), _cell(found.vas.spearman))
    return table


def _bounds(figure: Estimate) -> str:
    return "-" if figure.interval is None else f"{figure.interval[0]:.4g} .. {figure.interval[1]:.4g}"


def _cell(figure: Estimate | None) -> str:
    if figure is None or figure.interval is None:
        return "-" if figure is None else f"{figure.value:.3f}"
    return f"{figure.value:.3f} ({figure.interval[0]:.3f} .. {figure.interval[1]:.3f})"
