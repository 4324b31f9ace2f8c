"""Cold start: `torchrun … -m avar_rl.verl_plugin.sft RECIPE [key=value …]`, verl's SFT trainer with the guided loss."""

import argparse
import sys


def parse_arguments(argv: list[str] | None, description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("recipe", help="YAML over recipes/config, for example recipes/config/tiny_sft.yaml")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, for example optim.lr=1e-5 avar.guidance.beta=0")
    parser.add_argument("--profile", choices=["cpu", "gpu"], default="gpu", help="hardware profile (default: gpu)")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved, checked configuration and stop")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv, __doc__)
    from avar_rl.verl_plugin import environment

    environment.prepare(arguments.profile)
    from omegaconf import OmegaConf

    from avar_rl.verl_plugin import preflight, recipe, settings

    try:
        config = recipe.load(arguments.recipe, arguments.overrides, stage="sft")
        ours = settings.parse(settings.SFTSettings, config)
        recipe.check_sft(config)
        if arguments.dry_run:
            print(OmegaConf.to_yaml(config, resolve=True))
            return 0
        preflight.check_files(config.data.train_files, "data.train_files")
        preflight.check_files(config.data.val_files, "data.val_files")
        preflight.check_model(config.model.path)
    except ValueError as error:
        print(f"avar_rl sft: {error}", file=sys.stderr)
        return 2
    return _train(config, ours)


def _train(config, ours) -> int:
    from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group

    from avar_rl.verl_plugin.sft_trainer import GuidedSFTTrainer

    initialize_global_process_group()
    try:
        GuidedSFTTrainer(config=config, guidance=ours.guidance).fit()
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume from the last checkpoint", file=sys.stderr)
        return 130
    finally:
        destroy_global_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
