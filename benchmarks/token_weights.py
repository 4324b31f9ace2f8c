"""What token weights cost on a CPU, from one run: `python -m benchmarks.token_weights [--case text-4096 …]`.

A step without its rollout is a forward pass for the old log-probabilities, and forward, loss and backward of an update.
To it comes what the trainer does between the two for each of the weights, on responses of the same lengths: the call,
its checks, the product, the multiplied advantages and the curves. Entropies, masses and dependence are drawn at random.
Given are processor seconds (other work on the machine hardly shows in them), the median of the repeats, and of the
ratios (step + weights) / step repeat by repeat the median and the largest. What a weight needs to be measured is not in
it: for masses see `benchmarks.recording`; the blind pass is one more forward pass.
"""

from __future__ import annotations

from functools import partial
from statistics import median
from time import process_time

from benchmarks import cases

CASES = {"miniature": cases.miniature, "text-4096": partial(cases.text_model, tokens=4096)}
WEIGHTS = {
    "attention_top": {"attention_top": {}},
    "entropy_top": {"entropy_top": {}},
    "vppo": {"vppo": {}},
    "all three": {"attention_top": {}, "entropy_top": {"share": 0.9}, "vppo": {"normalise": "batch"}},
}


def main() -> None:
    options = cases.options_of(__doc__, CASES).parse_args()
    cases.begin(options)
    for name in options.case or CASES:
        report(CASES[name]("cpu"), options.repeats)


def report(case: cases.Case, repeats: int) -> None:
    responses, tokens = case.response_positions.shape
    layers = case.model.config.get_text_config().num_hidden_layers
    print(f"{case.name}\n  {responses} responses of {tokens:,} tokens, {layers} layers", flush=True)
    weigh = {name: prepared(lines, responses, tokens, layers) for name, lines in WEIGHTS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ("step", *weigh)}
    for repeat in range(repeats + 1):  # the first is a warm-up
        timed = {"step": timing(lambda: step(case)), **{name: timing(run) for name, run in weigh.items()}}
        for name, spent in timed.items() if repeat else ():
            seconds[name].append(spent)
    print(f"  {'step':14} {median(seconds['step']):9.4f} s")
    for name in weigh:
        ratios = [1 + spent / whole for spent, whole in zip(seconds[name], seconds["step"], strict=True)]
        line = f"  {name:14} {median(seconds[name]):9.4f} s   ratio {median(ratios):.4f}, at most {max(ratios):.4f}"
        print(line, flush=True)


def timing(run) -> float:
    started = process_time()
    run()
    return process_time() - started


def step(case: cases.Case) -> None:
    cases.old_log_probs(case, "plain")
    log_probs, _ = cases.forward(case, "plain", case.response_positions)
    log_probs.neg().mean().backward()
    case.model.zero_grad()


def prepared(lines: dict, responses: int, tokens: int, layers: int):
    """A function that weighs a step of responses by the recipe's `lines`, as the trainer does."""
    import torch

    from avar_rl.verl_plugin.grpo.weighing import weighed
    from avar_rl.verl_plugin.scored_batch import ScoredBatch
    from avar_rl.verl_plugin.watch.metrics import weight_metrics
    from rewards.weigh import TokenWeightSet, parse_weights

    torch.manual_seed(0)
    weights = TokenWeightSet(parse_weights(lines))
    scored = ScoredBatch(1, tuple(response(str(i), tokens, layers) for i in range(responses)))
    advantages, masks = torch.randn(responses, 1).expand(-1, tokens), torch.ones(responses, tokens, dtype=torch.bool)

    def run() -> None:
        _, _, said = weighed(list(advantages), list(masks), scored, weights, "stop")
        weight_metrics(said)

    return run


def response(key: str, tokens: int, layers: int):
    import torch

    from avar_rl.verl_plugin.scored_batch import ScoredResponse
    from rewards.combine import Score, Values
    from rewards.sample import AttentionSample, Masses, Tokens

    masses = Masses(torch.rand(tokens, layers), torch.rand(tokens, layers))
    measured = Tokens(-torch.rand(tokens), torch.rand(tokens), torch.randn(tokens))
    sample = AttentionSample("", "", "", image_sizes=((112, 112),), masses=masses, tokens=measured)
    return ScoredResponse(key, key, sample, torch.zeros(tokens), Values({"accuracy": 1.0}), Score(1.0, {}))


if __name__ == "__main__":
    main()
