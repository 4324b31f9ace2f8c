"""What the blind pass costs on a CPU, from one run: `python -m benchmarks.blind [--case image-2048 …]`.

A forward pass for old log-probabilities, and the blind pass beside it: the hash of each sequence, masked pixels, the
same forward. In training the first also computes entropies, which the blind pass does not; they are left out here. The
two alternate; seconds are processor time, since other work on the machine hardly shows in it. Given are the median, and
of the ratios repeat by repeat the median and the quartiles; for the masking alone, its seconds and its share.
"""

from __future__ import annotations

from functools import partial
from statistics import median

from benchmarks import cases

CASES = {"miniature": cases.miniature, "image-2048": partial(cases.vision_model, tokens=2048)}


def main() -> None:
    options = cases.options_of(__doc__, CASES).parse_args()
    cases.begin(options)
    for name in options.case or CASES:
        report(CASES[name]("cpu"), options.repeats)


def report(case: cases.Case, repeats: int) -> None:
    steps = {
        "old log-probs": lambda: cases.old_log_probs(case, "plain"),
        "blind pass": lambda: cases.old_log_probs(cases.blinded(case), "plain"),
        "masking alone": lambda: cases.blinded(case),
    }
    seconds = cases.alternate(steps, repeats)
    print(case.name)
    plain = seconds["old log-probs"]
    for name, spent in seconds.items():
        line = f"  {name:14} {median(spent):8.4f} s"
        print(line if spent is plain else f"{line}   {cases.ratio_to(plain, spent, 4)}", flush=True)


if __name__ == "__main__":
    main()
