"""The miniature world's questions as a source: `python -m data_tools.miniature.source --out FILE`.

They are those of the split from which the miniature's cold start is made, so no held-out scene is among them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from data_tools.formats.sample import DataSample, SampleWriter
from data_tools.miniature.questions import WorldQuestion
from data_tools.miniature.scenes import render
from data_tools.miniature.world import WorldConfig, make_questions

KINDS = {"integer": "number", "fraction": "number", "expression": "expression", "choice": "choice", "yes/no": "words"}


def questions(seed: int, rows: int) -> list[WorldQuestion]:
    """The first `rows` questions of the world's cold start under `seed`.

    Raises:
        ValueError: less than one row, or more than there are scenes for.
    """
    return make_questions(WorldConfig(seed=seed, sft_train=rows, pretrain=1))["sft_train"]  # that split is drawn last


def to_sample(index: int, question: WorldQuestion) -> DataSample:
    """The question as a sample with its drawn image; its id is its place among the questions."""
    images = (render(question.scene),) if question.scene else ()
    kind = KINDS[question.gold_kind]
    return DataSample(f"{index:06d}", question.kind, question.text, question.gold, kind, images)


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the file of samples; a user's mistake ends with status 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="parquet file of samples")
    parser.add_argument("--seed", type=int, default=0, help="seed of the world (default 0)")
    parser.add_argument("--rows", type=int, default=4000, help="questions (default 4000)")
    arguments = parser.parse_args(argv)
    try:
        with SampleWriter(arguments.out) as writer:
            for index, question in enumerate(questions(arguments.seed, arguments.rows)):
                writer.add(to_sample(index, question))
    except (ValueError, OSError) as error:
        parser.exit(2, f"error: {error}\n")
    print(f"{arguments.out}: {writer.rows} questions of the miniature world, seed {arguments.seed}")


if __name__ == "__main__":
    main()
