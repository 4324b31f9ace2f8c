"""Turn image questions into training files: `python -m data_tools.prepare SOURCE OUT`.

SOURCE is a file of samples from `data_tools.convert`, or your own parquet, json or jsonl file, or a hub name, whose
columns the options name (it is then converted on the way, by the same rules). Writes
OUT/{rl_train,rl_val,test}.parquet and, where there are responses, OUT/{sft_train,sft_val}.parquet from the same
training and validation questions. Duplicates are kept once, so no question is in two splits. The first bad row stops:
use `data_tools.convert` to have bad rows counted and left out. Check the result with `data_tools.validate`.

SOURCE may also be one or several files of RL rows that are ready, such as OUT/rl_train.parquet. Then training rows can
be chosen: by pass rates that `avar difficulty` has measured (--keep-pass), by the shares of sources (--mix), from easy
to hard (--curriculum). Rows held out are drawn first and from all rows; here none are, unless --val-rows or --test-rows
says so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from data_tools.choice import Choice, Split, parse_mix, parse_range
from data_tools.convert.sources.columns import EVIDENCE_HELP, INDEX_HELP, INDEXES, SEVERAL, SEVERAL_HELP, Columns
from data_tools.formats.markup import MARKUP_HELP
from data_tools.formats.rows import chat_row, rl_row, row_writer
from data_tools.formats.sample import DataSample, SampleWriter, is_sample_file, read_samples
from data_tools.ready_rows import FILES, is_rl_file, prepare_ready

RAW = ("question_column", "answer_column", "images_column", "options_column", "answer_index")
RAW += ("several_answers", "response_column", "markup", "split")  # options that RL rows have no use for


def convert(source: str, path: Path, columns: Columns, hub_split: str, escape_markup: bool = False) -> int:
    """Writes the samples of `source` (a file or hub name) to `path`; returns how many duplicates were left out.

    `escape_markup`: chat markup in a text is taken apart, and is no reason to stop.

    Raises:
        ValueError: the source cannot be loaded, or a row is bad (names it).
    """
    from tqdm import tqdm

    from data_tools.convert.duplicates import Duplicates
    from data_tools.convert.load import open_rows, settled
    from data_tools.convert.pipeline import Converter, Rejection
    from data_tools.convert.run import BAD
    from rewards.shipped.accuracy import check_gold

    rows_as = settled(columns.source(Path(source).stem), source, hub_split)
    converter = Converter(rows_as, hub_split, check_gold, escape_markup=escape_markup)
    rows = open_rows(converter.source, source, hub_split)
    duplicates = 0
    with SampleWriter(path) as writer:
        for outcome in tqdm(converter.convert(rows, Duplicates()), desc="reading", unit="row"):
            if not isinstance(outcome, Rejection):
                writer.add(outcome.sample)
            elif outcome.kind in BAD:
                raise ValueError(f"row {outcome.index}: {outcome.text}")
            else:
                duplicates += 1
    return duplicates


def write_splits(
    samples: Iterator[DataSample], folder: Path, names: Sequence[str], out: Path, *, chat: bool
) -> list[str]:
    """Writes each sample to the files of its split under `out`; returns a line of text about each file.

    `names` are the samples' splits in order; image paths are read from `folder`; with `chat`, there are SFT rows too.

    Raises:
        ValueError: an image file is missing, or a sample has no response where others have one.
    """
    with ExitStack() as stack:
        rl = {n: stack.enter_context(row_writer("rl", out / f"{FILES[n]}.parquet")) for n in set(names)}
        sft = {
            n: stack.enter_context(row_writer("chat", out / f"sft_{n}.parquet"))
            for n in set(names) & {"train", "val"}
            if chat
        }
        for name, sample in zip(names, samples, strict=True):
            images = sample.read_images(folder)
            row = rl_row(
                id=sample.id,
                source=sample.source,
                question=sample.text,
                gold=sample.gold,
                images=images,
                gold_kind=sample.gold_kind,
                options=sample.options,
                other_golds=sample.other_golds,
                evidence=sample.evidence,
                index=rl[name].rows,
                split=FILES[name],
            )
            rl[name].add(row)
            if name in sft:
                sft[name].add(chat_row(id=sample.id, question=sample.text, response=sample.response, images=images))
    return [f"  {w.path.stem:<10} {w.rows:>8} rows" for w in (*rl.values(), *sft.values())]


def prepare(source: str, out: Path, columns: Columns, hub_split: str, split: Split, escape_markup: bool = False) -> str:
    """Converts `source` where it is no file of samples, and writes the files under `out`; returns a summary as text.

    `escape_markup` is for the conversion; see `convert`.

    Raises:
        ValueError: the source cannot be loaded, a row is bad (names it), or no row would be left for training.
    """
    ready = is_sample_file(source)
    path = Path(source) if ready else out / ".samples.parquet"
    try:
        duplicates = 0 if ready else convert(source, path, columns, hub_split, escape_markup)
        responses = [sample.response is not None for sample in read_samples(path)]
        names = split.names(len(responses))
        lines = [f"{source}: {len(responses) + duplicates} rows, {duplicates} of them duplicates left out"]
        lines += write_splits(read_samples(path), path.parent, names, out, chat=any(responses))
    finally:
        if not ready:
            path.unlink(missing_ok=True)
    return "\n".join(lines)


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Prepares what the options of the command name, and prints the summary. ValueError: bad input."""
    choice = Choice(
        keep_pass=None if args.keep_pass is None else parse_range(args.keep_pass),
        mix=None if args.mix is None else parse_mix(args.mix),
        mix_rows=args.mix_rows,
        curriculum=args.curriculum,
    )
    held_out = {name: value for name in ("val_rows", "test_rows") if (value := getattr(args, name)) is not None}
    if all(map(is_rl_file, args.sources)):
        if strange := [name for name in RAW if getattr(args, name) != parser.get_default(name)]:
            option = strange[0].replace("_", "-")
            raise ValueError(f"--{option} says how raw data is read; {args.sources[0]} holds RL rows, which are ready")
        split = Split(**{"val_rows": 0, "test_rows": 0} | held_out, seed=args.seed)
        prepare_ready(args.sources, args.out, split, choice)
        return
    source, *others = args.sources
    if others or choice.named:
        _refuse_raw(next(source for source in args.sources if not is_rl_file(source)), choice)
    split = Split(**held_out, seed=args.seed)
    print(prepare(source, args.out, Columns.of_arguments(args), args.split, split, args.markup == "escape"))


def _refuse_raw(source: str, choice: Choice) -> None:
    if source.endswith(".parquet") and not Path(source).is_file():
        raise ValueError(f"{source}: no such data file")
    what = f"{choice.named[0]} takes" if choice.named else "several sources must be"
    raise ValueError(
        f"{what} RL rows, and {source} holds none: make them with `avar prepare {source} FOLDER`, and give"
        " FOLDER/rl_train.parquet"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="avar prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = "file of samples; or parquet, json or jsonl file, or a hub name; or files of RL rows"
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help=source)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the parquet files")
    parser.add_argument("--question-column", default="question")
    parser.add_argument("--answer-column", default="answer", help="short gold answer, as the grader can read it")
    parser.add_argument("--images-column", help="image, or list of images: bytes, {bytes, path}, or paths")
    parser.add_argument("--options-column", help="options; the answer is the text of one, its letter or its place")
    parser.add_argument("--answer-index", choices=INDEXES, default="detect", help=INDEX_HELP)
    parser.add_argument("--several-answers", choices=SEVERAL, default="reject", help=SEVERAL_HELP)
    parser.add_argument("--response-column", help="worked response for SFT: <think>…</think><answer>…</answer>")
    parser.add_argument("--evidence-column", help=EVIDENCE_HELP)
    parser.add_argument("--markup", choices=("reject", "escape"), default="reject", help=MARKUP_HELP)
    parser.add_argument("--split", default="train", help="split of a hub data set to read (default train)")
    parser.add_argument("--val-rows", type=int, help="rows held out for validation (default 200; of RL rows 0)")
    parser.add_argument("--test-rows", type=int, help="rows held out for test (default 500; of RL rows 0)")
    parser.add_argument("--seed", type=int, default=0, help="of every draw: splits, mixture, order (default 0)")
    ready = parser.add_argument_group("of RL rows")
    ready.add_argument("--keep-pass", metavar="LOW-HIGH", help="train on rows of such pass rates, ends included")
    ready.add_argument(
        "--mix", metavar="NAME=WEIGHT,…", help="shares of sources (`data_source`) in the training rows; others get none"
    )
    ready.add_argument(
        "--mix-rows",
        type=int,
        metavar="N",
        help="rows of the mixture, repeated by need (default: most without repeats)",
    )
    ready.add_argument("--curriculum", action="store_true", help="from easy to hard; train with data.shuffle=false")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    try:
        run(parser.parse_intermixed_args(argv), parser)
    except (ValueError, OSError) as error:
        print(f"avar prepare: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
