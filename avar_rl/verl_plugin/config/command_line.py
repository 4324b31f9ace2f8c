"""The command line of both training stages. Imports nothing of the stack, so that `--help` is quick."""

import argparse


def parse_arguments(argv: list[str] | None, description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("recipe", help="YAML over recipes/config, for example recipes/config/tiny_sft.yaml")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, for example optim.lr=1e-5 avar.guidance.beta=0")
    parser.add_argument("--profile", choices=["cpu", "gpu"], default="gpu", help="hardware profile (default: gpu)")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved, checked configuration and stop")
    return parser.parse_intermixed_args(argv)
