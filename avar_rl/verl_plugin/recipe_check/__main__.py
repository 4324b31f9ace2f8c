"""`python -m avar_rl.verl_plugin.recipe_check --profile gpu --out OUT [--print]`: a recipe's stages on standard input.

Exit status: 0 all stages can start, 2 something is at fault, each said in one sentence. Called by recipes/stages.sh.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="avar recipe", description=__doc__)
    parser.add_argument("--profile", choices=["cpu", "gpu"], required=True, help="hardware profile")
    parser.add_argument("--out", type=Path, required=True, help="the recipe's folder")
    parser.add_argument("--print", action="store_true", help="print commands, configurations and estimates")
    arguments = parser.parse_args(argv)
    from avar_rl.runtime.recipe_plan import read_plan
    from avar_rl.verl_plugin.config import environment
    from avar_rl.verl_plugin.recipe_check import plan

    stages = read_plan(sys.stdin.read())
    if not any(stage.module in (*plan.TRAINERS, plan.EVALUATION) for stage in stages):
        return _without_training(stages, arguments.out) if arguments.print else 0  # all that takes long is done
    environment.prepare(arguments.profile)
    from avar_rl.verl_plugin.compat import patches

    patches.name_the_cpu_wheel_vllm()  # a GPU recipe's dry run on a laptop: verl's LoRA settings ask for vLLM's version
    from avar_rl.verl_plugin.recipe_check.check import check

    return check(stages, arguments.out, arguments.profile, verbose=arguments.print)


def _without_training(stages, out: Path) -> int:
    """Prints commands, and what files they lack, without the seconds that importing verl takes."""
    from avar_rl.verl_plugin.recipe_check.plan import missing_files

    for stage in stages:
        print(f"# stage {stage.name}: {' '.join(stage.words)}")
    faults = missing_files(stages, out)
    for fault in faults:
        print(f"avar recipe: {fault}", file=sys.stderr)
    return 2 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
