"""Make the miniature world: `python -m data_tools.miniature.data --out DIR [--seed 0]` writes
DIR/{pretrain,sft_train,sft_val,rl_train,rl_val,test}.parquet in verl's row formats and reports what they hold. Beside
the SFT files, *_unanchored and *_words hold the same rows without words about the image, and about boards in words."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from data_tools.formats.rows import write_rows
from data_tools.miniature.questions import WorldQuestion
from data_tools.miniature.world import (
    MAX_LANGUAGE_PRIOR,
    SPLITS,
    TRAINING_SPLITS,
    WorldConfig,
    files_of,
    language_prior,
    make_questions,
)


def report(splits: dict[str, list[WorldQuestion]], prior: float) -> str:
    """Rows per split by kind of question and of gold, and the language prior on the test split, as a table of text."""
    lines = []
    for title, column in (("kind", "kind"), ("kind of gold", "gold_kind")):
        counts = {split: Counter(getattr(q, column) for q in splits[split]) for split in SPLITS}
        names = sorted(set().union(*counts.values()))
        lines.append(f"{title:<22}" + "".join(f"{split:>11}" for split in SPLITS))
        lines += [f"  {name:<20}" + "".join(f"{counts[split][name]:>11}" for split in SPLITS) for name in names]
    lines.append(f"{'rows':<22}" + "".join(f"{len(splits[split]):>11}" for split in SPLITS))
    lines.append(f"language prior on test: {prior:.1%} (limit {MAX_LANGUAGE_PRIOR:.0%})")
    return "\n".join(lines)


def make_world(config: WorldConfig, out: Path) -> str:
    """Writes the files of every split to the folder `out`; returns the report.

    Raises:
        ValueError: the golds can be guessed from the question text too often (nothing is written then), or the world
            has not that many questions.
    """
    from tqdm import tqdm

    total = sum(getattr(config, split) for split in SPLITS)
    with tqdm(total=total, desc="questions", unit="row") as bar:
        splits = make_questions(config, bar.update)
    prior = language_prior([q for split in TRAINING_SPLITS for q in splits[split]], splits["test"])
    if prior >= MAX_LANGUAGE_PRIOR:
        raise ValueError(
            f"language prior on test is {prior:.1%}, the limit is {MAX_LANGUAGE_PRIOR:.0%}: "
            f"too few test rows ({config.test}) or unbalanced golds"
        )
    for split in tqdm(SPLITS, desc="drawing and writing", unit="file"):
        for name, rows in files_of(split, splits[split], config).items():
            write_rows(rows, out / f"{name}.parquet")
    return report(splits, prior)


def main(argv: Sequence[str] | None = None) -> int:
    defaults = WorldConfig()
    parser = argparse.ArgumentParser(
        prog="python -m data_tools.miniature.data",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the parquet files")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="equal seeds give equal files")
    for split in reversed(SPLITS):
        flag = "--" + split.replace("_train", "").replace("_", "-") + "-rows"
        parser.add_argument(flag, dest=split, type=int, default=getattr(defaults, split), help=f"rows of {split}")
    parser.add_argument(
        "--text-share", type=float, default=defaults.text_share, help="share of text-only rows in the training splits"
    )
    parser.add_argument(
        "--glance-share", type=float, default=defaults.glance_share, help="share of short thoughts where there are two"
    )
    parser.add_argument(
        "--answer-share", type=float, default=defaults.answer_share, help="share of bare answers in pre-training"
    )
    parser.add_argument(
        "--words-share", type=float, default=defaults.words_share, help="share of boards in words in pre-training"
    )
    options = vars(parser.parse_args(argv))
    out = options.pop("out")
    try:
        print(make_world(WorldConfig(**options), out))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
