"""How much a model looks at images: `python -m avar_rl.probe MODEL DATA [--limit 200] [--json FILE] [--plot FILE]`.

Prints the Visual Attention Score (VAS), and beside it image mass, system mass and the ratio of their means, with and
without position 0 (the attention sink), with bootstrap intervals over samples. DATA is a parquet file: RL rows, chat
rows, or a column of text (question, problem, query, prompt, text) beside one of images (images, image).

With --blind also how much it needs them: the log-probability that the tokens of a response lose where patches of the
image are masked, and how that goes with the attention of the same tokens. This needs responses, so DATA holds chat
rows, and the attention is the response's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avar_rl.blind import BlindSettings

BLIND_OPTIONS = ("mask", "share", "value", "seed")  # --blind-mask, …: the settings of avar_rl.blind


def probe(options: argparse.Namespace) -> None:
    """Measures, prints, and writes the files that `options` ask for. ValueError: data, model or layers do not fit."""
    from avar_rl.attention.recorder import language_attention_modules
    from avar_rl.attention.roles import Markup
    from avar_rl.probe.blind_pass import measure_blind
    from avar_rl.probe.dependence import dependence_figures, dependence_json, print_dependence
    from avar_rl.probe.measure import load_network, measure
    from avar_rl.probe.report import figures, print_tables, to_json
    from avar_rl.probe.samples import load_samples
    from avar_rl.runtime.files import write_json
    from data_tools.validate import load_processor

    processor = load_processor(options.model)
    Markup.from_tokenizer(processor.tokenizer)  # refuses an unsupported family before its weights are read
    samples = load_samples(options.data, options.queries, options.limit, processor.tokenizer)
    network, ids = load_network(options.model), [sample.id for sample in samples]
    wanted: Any = {"layers": options.layers, "batch_size": options.batch_size}
    blind: BlindSettings | None = options.blind
    responses = []
    if blind is None:
        heads = measure(network, samples, processor, queries=options.queries, **wanted)
    else:
        heads, responses = measure_blind(network, samples, processor, blind, **wanted)
    layers = options.layers or list(language_attention_modules(network))
    found, dependence = figures(heads), None
    print_tables(heads, found, layers)
    written = to_json(heads, found, layers, ids)
    if blind is not None:
        dependence = dependence_figures(heads, responses)
        print_dependence(dependence, layers)
        written["blind"] = dependence_json(dependence, responses, ids, blind, processor.tokenizer)
    if options.json:
        origin = {"model": options.model, "data": str(options.data), "queries": options.queries}
        write_json(options.json, origin | written)
        print(options.json)
    if options.plot:
        for path in _draw(options, network, samples, processor, heads.seen_N, found, dependence, layers):
            print(path)


def _draw(options, network, samples, processor, seen_N, found, dependence, layers) -> Iterator[Path]:
    """Draws what was found; gives the path of each picture as it is written."""
    from avar_rl.probe.measure import image_attention
    from avar_rl.probe.plot import heat_maps, overlay, scatter

    seen = seen_N.nonzero()
    if not len(seen):
        raise ValueError("--plot: no sample has an image and queries, so there is nothing to draw")
    heat_maps(found, layers, options.plot)
    yield options.plot
    sample = samples[int(seen[0])]
    attention_hw = image_attention(network, sample, processor, queries=options.queries, layers=options.layers)
    beside = options.plot.with_name(f"{options.plot.stem}.sample.png")
    overlay(sample.pictures()[0], attention_hw, sample.id, beside)
    yield beside
    if dependence is not None:
        points = options.plot.with_name(f"{options.plot.stem}.dependence.png")
        scatter(dependence, layers, points)
        yield points


def blind_settings(options: argparse.Namespace) -> BlindSettings | None:
    """What the options --blind… say; None without --blind.

    ValueError: one of them is out of bounds, does nothing, or contradicts --queries.
    """
    given = {name: value for name in BLIND_OPTIONS if (value := getattr(options, f"blind_{name}")) is not None}
    if not options.blind:
        if given:
            raise ValueError(f"--blind-{min(given)} does nothing without --blind")
        return None
    if options.queries == "user":
        raise ValueError(
            "--blind measures the tokens of a response, as a model predicts no others; leave out --queries user"
        )
    from avar_rl.blind import BlindSettings
    from avar_rl.runtime.settings import parse

    try:
        return parse(BlindSettings, given, "")
    except ValueError as error:
        raise ValueError(f"--blind-{error}") from None


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="avar probe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="model directory or hub name")
    parser.add_argument("data", type=Path, help="parquet file")
    parser.add_argument("--limit", type=int, default=200, help="the first N rows (default 200, as in the paper)")
    parser.add_argument("--layers", help="indices and ranges, for example 0,4-6 (default: all)")
    parser.add_argument(
        "--queries",
        choices=("user", "response"),
        help="whose attention: the user's text (VAS), or the response's (default: user; response with --blind)",
    )
    parser.add_argument("--json", type=Path, help="write every figure here, per layer, head and sample")
    parser.add_argument(
        "--plot",
        type=Path,
        help="draw heat maps here (PNG), one sample's image in *.sample.png, and with --blind *.dependence.png",
    )
    parser.add_argument("--batch-size", type=int, help="samples per forward pass (default: as many as memory holds)")
    blind = parser.add_argument_group("dependence")
    blind.add_argument("--blind", action="store_true", help="a second pass with masked images")
    blind.add_argument("--blind-mask", choices=("patches", "tokens"), help="what is masked (default patches)")
    blind.add_argument("--blind-share", metavar="SHARE", help="of the patches or tokens of an image (default 0.6)")
    blind.add_argument("--blind-value", choices=("black", "mean"), help="black, or the image's mean (default black)")
    blind.add_argument("--blind-seed", metavar="SEED", help="another masks other patches (default 0)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    options = argument_parser().parse_args(argv)
    try:
        if options.layers is not None:
            from avar_rl.runtime.layers import parse_layers

            options.layers = parse_layers(options.layers, "--layers")
        if options.batch_size is not None and options.batch_size < 1:
            raise ValueError(f"--batch-size is {options.batch_size}; it must be at least 1")
        from avar_rl.runtime.environment import prepare_environment

        prepare_environment()
        options.blind = blind_settings(options)
        options.queries = options.queries or ("user" if options.blind is None else "response")
        probe(options)
    except (OSError, ValueError) as error:
        print(f"avar probe: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
