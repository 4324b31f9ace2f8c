"""The command line of both training stages. Imports nothing of the stack, so that `--help` is quick."""

import argparse
from collections.abc import Sequence


def parse_arguments(argv: Sequence[str] | None, stage: str, description: str) -> argparse.Namespace:
    """The arguments recipe, overrides, profile and dry_run of `avar STAGE` ("sft" or "grpo").

    Exits with status 2 where the arguments are wrong.
    """
    parser = argparse.ArgumentParser(prog=f"avar {stage}", description=description)
    parser.add_argument(
        "recipe", help=f"YAML over recipes/config/{stage}.yaml, for example recipes/config/tiny_{stage}.yaml"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides of the recipe")
    parser.add_argument("--profile", choices=["cpu", "gpu"], default="gpu", help="hardware profile (default: gpu)")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved, checked configuration and stop")
    return parser.parse_intermixed_args(argv)
