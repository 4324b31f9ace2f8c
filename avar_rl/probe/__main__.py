"""How much a model looks at images: `python -m avar_rl.probe MODEL DATA [--limit 200] [--json FILE] [--plot FILE]`.

Prints the Visual Attention Score (VAS), and beside it image mass, system mass and the ratio of their means, with and
without position 0 (the attention sink), with bootstrap intervals over samples. DATA is a parquet file: RL rows, chat
rows, or a column of text (question, problem, query, prompt, text) beside one of images (images, image).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def probe(options: argparse.Namespace) -> None:
    """Measures, prints, and writes the files that `options` ask for. ValueError: data, model or layers do not fit."""
    from avar_rl.attention.recorder import language_attention_modules
    from avar_rl.attention.roles import Markup
    from avar_rl.probe.measure import image_attention, load_network, measure
    from avar_rl.probe.report import figures, print_tables, to_json
    from avar_rl.probe.samples import load_samples
    from data_tools.validate import load_processor

    processor = load_processor(options.model)
    Markup.from_tokenizer(processor.tokenizer)  # refuses an unsupported family before its weights are read
    samples = load_samples(options.data, options.queries, options.limit, processor.tokenizer)
    network = load_network(options.model)
    wanted = {"queries": options.queries, "layers": options.layers}
    heads = measure(network, samples, processor, **wanted, batch_size=options.batch_size)
    layers = options.layers or list(language_attention_modules(network))
    found = figures(heads)
    print_tables(heads, found, layers)
    if options.json:
        from avar_rl.runtime.files import write_json

        origin = {"model": options.model, "data": str(options.data), "queries": options.queries}
        write_json(options.json, origin | to_json(heads, found, layers, [sample.id for sample in samples]))
        print(options.json)
    if options.plot:
        from avar_rl.probe.plot import heat_maps, overlay

        seen = heads.seen_N.nonzero()
        if not len(seen):
            raise ValueError("--plot: no sample has an image and queries, so there is nothing to draw")
        heat_maps(found, layers, options.plot)
        sample = samples[int(seen[0])]
        beside = options.plot.with_name(f"{options.plot.stem}.sample.png")
        overlay(sample.pictures()[0], image_attention(network, sample, processor, **wanted), sample.id, beside)
        print(f"{options.plot}\n{beside}")


def main(argv: Sequence[str] | None = None) -> int:
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
        default="user",
        help="whose attention: the user's text (VAS), or the response's",
    )
    parser.add_argument("--json", type=Path, help="write every figure here, per layer, head and sample")
    parser.add_argument("--plot", type=Path, help="draw heat maps here (PNG), and one sample's image in *.sample.png")
    parser.add_argument("--batch-size", type=int, help="samples per forward pass (default: as many as memory holds)")
    options = parser.parse_args(argv)
    try:
        if options.layers is not None:
            from avar_rl.runtime.layers import parse_layers

            options.layers = parse_layers(options.layers, "--layers")
        if options.batch_size is not None and options.batch_size < 1:
            raise ValueError(f"--batch-size is {options.batch_size}; it must be at least 1")
        from avar_rl.runtime.environment import prepare_environment

        prepare_environment()
        probe(options)
    except (OSError, ValueError) as error:
        print(f"avar probe: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
