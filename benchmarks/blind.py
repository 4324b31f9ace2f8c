"""What the blind pass costs on a CPU, from one run: `python -m benchmarks.blind [--case image-2048 …]`.

A forward pass for old log-probabilities, and the blind pass beside it: the hash of each sequence, masked pixels, the
same forward. In training the first also computes entropies, which the blind pass does not; they are left out here. The
two alternate; seconds are processor time, since other work on the machine hardly shows in it. Given are the median, and
of the ratios repeat by repeat the median and the quartiles; for the masking alone, its seconds and its share.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median, quantiles
from time import process_time

from benchmarks import cases

CASES = {"miniature": cases.miniature, "image-2048": partial(cases.vision_model, tokens=2048)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, action="append", help="may be repeated (default: all)")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    import torch

    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.threads} threads, {args.repeats} repeats, processor seconds")
    for name in args.case or CASES:
        report(CASES[name]("cpu"), args.repeats)


def report(case: cases.Case, repeats: int) -> None:
    steps: dict[str, Callable[[], object]] = {
        "old log-probs": lambda: cases.old_log_probs(case, "plain"),
        "blind pass": lambda: cases.old_log_probs(masked(case), "plain"),
        "masking alone": lambda: masked(case),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 1):  # the first is a warm-up
        for name in steps if repeat % 2 else reversed(steps):
            start = process_time()
            steps[name]()
            if repeat:
                seconds[name].append(process_time() - start)
    print(case.name)
    plain = seconds["old log-probs"]
    for name, spent in seconds.items():
        ratios = [a / b for a, b in zip(spent, plain, strict=True)]
        low, _, high = quantiles(ratios, n=4, method="inclusive") if repeats > 1 else ratios * 3
        line = f"  {name:14} {median(spent):8.4f} s"
        print(line + f"   ratio {median(ratios):.4f} ({low:.4f} to {high:.4f})" * (spent is not plain), flush=True)


def masked(case: cases.Case) -> cases.Case:
    """The case with the pixels of a blind pass in the settings that a recipe starts from."""
    from avar_rl.blind import BlindSettings, PatchFormat, mask_pixels, response_seed

    settings, rows = BlindSettings(), case.inputs["input_ids"]
    pixels = mask_pixels(
        case.inputs["pixel_values"],
        case.inputs["image_grid_thw"],
        [response_seed(ids_T, settings.seed) for ids_T in rows],
        settings,
        PatchFormat(black=(-1.8, -1.75, -1.5), merge_size=2),
        images_per_row=[1] * len(rows),
    )
    return replace(case, inputs=case.inputs | {"pixel_values": pixels})


if __name__ == "__main__":
    main()
