"""What recording span masses costs on a CPU, from one run: `python -m benchmarks.recording [--case text-2048 …]`.

Ratios of two steps to the same step without masses, and beside them the same step on eager attention maps:
  guided SFT step   forward, loss and backward; masses of the guided loss's queries only
  old log-probs     forward under no_grad; masses of all response tokens
The variants alternate; seconds are processor time, since other work on the machine hardly shows in it. Given are the
median, and of the ratios repeat by repeat the median and the quartiles. Peak memory is that of a process which runs the
step twice, and in brackets what the step adds to the model and its inputs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import partial
from statistics import median

from benchmarks import cases

CASES = {
    "miniature": cases.miniature,
    "text-2048": partial(cases.text_model, tokens=2048),
    "text-4096": partial(cases.text_model, tokens=4096),
}


def main() -> None:
    parser = cases.options_of(__doc__, CASES)
    parser.add_argument("--no-memory", action="store_true", help="seconds only")
    parser.add_argument(
        "--eager-up-to", type=int, default=2048, metavar="TOKENS", help="0: never (4,096 tokens need 15 GB)"
    )
    parser.add_argument("--memory-of", nargs=3, metavar=("CASE", "STEP", "VARIANT"), help=argparse.SUPPRESS)
    args = parser.parse_args()

    cases.begin(args)
    if args.memory_of:
        print_peak(*args.memory_of)
        return
    for name in args.case or CASES:
        case = CASES[name]("cpu")
        print(case.name, flush=True)
        eager = case.roles.shape[1] <= args.eager_up_to
        variants = cases.VARIANTS if eager else cases.VARIANTS[:2]
        for step in cases.STEPS:
            report_seconds(step, case, variants, args.repeats)
            if not args.no_memory:
                report_memory(name, step, variants)


def report_seconds(step: str, case: cases.Case, variants: tuple[str, ...], repeats: int) -> None:
    steps = {variant: partial(cases.STEPS[step], case, variant) for variant in variants}
    seconds = cases.alternate(steps, repeats)
    for variant, spent in seconds.items():
        line = f"  {step:16} {variant:10} {median(spent):7.3f} s"
        print(line if variant == "plain" else f"{line}   {cases.ratio_to(seconds['plain'], spent)}", flush=True)


def report_memory(name: str, step: str, variants: tuple[str, ...]) -> None:
    plain = None
    for variant in variants:
        command = [sys.executable, "-m", "benchmarks.recording", "--memory-of", name, step, variant]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peak, step_only = (float(number) for number in done.stdout.split()[-2:])
        plain = plain or peak
        print(f"  {step:16} {variant:10} peak {peak:6.0f} MiB ({step_only:.0f})   ratio {peak / plain:.3f}", flush=True)


def print_peak(name: str, step: str, variant: str) -> None:
    case = CASES[name]("cpu")
    before = status_mib("VmRSS")
    for _ in range(2):
        cases.STEPS[step](case, variant)
    print(status_mib("VmHWM"), status_mib("VmHWM") - before)


def status_mib(field: str) -> float:
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) / 1024


if __name__ == "__main__":
    main()
