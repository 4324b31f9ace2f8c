"""Look at what a GRPO run sampled: `python -m avar_rl.rollouts DIR` writes one HTML page without any other file.

DIR is a run's output or the record in it (avar.rollouts.dir). The page filters by step and score and shows the image,
the responses of a group side by side, the parts of each reward as bars, and the tokens coloured by attention mass.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def parse_steps(text: str) -> tuple[int, ...]:
    """The steps that an option names: `1,5-8` → (1, 5, 6, 7, 8)."""
    from avar_rl.runtime.layers import parse_indices

    try:
        return parse_indices(text, "steps", "step", "steps and ranges FIRST-LAST, joined by commas, such as 1,5-8")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> int:
    """The whole number above 0 that an option names."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="avar rollouts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="a run's output, or its rollout record")
    parser.add_argument("--out", type=Path, help="the page (default: DIR/rollouts.html)")
    parser.add_argument("--steps", type=parse_steps, help="for example 1,5-8 (default: 20 of them, evenly spaced)")
    parser.add_argument("--groups", type=positive, default=16, help="groups of a step, the first ones (default 16)")
    parser.add_argument("--image-size", type=positive, default=448, help="longest side in pixels (default 448)")
    parser.add_argument("--title", help="default: the directory's path")
    options = parser.parse_args(argv)

    from avar_rl.rollouts.page import Selection, build
    from avar_rl.runtime.files import write_whole

    out = options.out or options.directory / "rollouts.html"
    selection = Selection(steps=options.steps, groups=options.groups, image_size=options.image_size)
    try:
        page = build(options.directory, selection, options.title or str(options.directory))
        write_whole(out, page)
    except (OSError, ValueError) as error:
        print(f"avar rollouts: {error}", file=sys.stderr)
        return 2
    print(f"{out} ({len(page.encode()) / 1e6:.1f} MB): open it in a browser")
    return 0


if __name__ == "__main__":
    sys.exit(main())
