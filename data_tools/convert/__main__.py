"""Convert a public data set to files of samples: `python -m data_tools.convert SOURCE OUT`.

Writes OUT/SPLIT.parquet (samples), OUT/rejected.jsonl (every row left out: split, index, kind, what was
there) and OUT/report.json. Splits are converted in the order given, what is held out first: a row whose image stands in
an earlier split is left out. A split that is done stays, whatever happens to the next.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from data_tools.convert.sources import SOURCES, find
from data_tools.convert.sources.columns import EVIDENCE_HELP, INDEX_HELP, INDEXES, SEVERAL, SEVERAL_HELP, Columns
from data_tools.formats.markup import MARKUP_HELP


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="avar convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"Sources: {', '.join(SOURCES)}. `python -m data_tools.convert SOURCE --schema` says what one expects.",
    )
    parser.add_argument("source", help="name of a source, see below")
    parser.add_argument("out", type=Path, nargs="?", help="folder for the files")
    parser.add_argument("--schema", action="store_true", help="print the schema of the source and stop")
    parser.add_argument(
        "--data",
        action="append",
        metavar="[SPLIT=]WHERE",
        help="parquet, json, jsonl, tsv or arrow file, folder, or hub name, not the source's own; repeat for splits",
    )
    parser.add_argument("--split", action="append", help="splits to convert, held-out ones first (default: all)")
    parser.add_argument("--images", choices=("bytes", "paths"), default="bytes", help="in the file, or in OUT/images")
    parser.add_argument("--benchmark", type=Path, help="list of image hashes that no row may contain")
    parser.add_argument("--shared-images", action="store_true", help="keep rows whose image an earlier split shows")
    parser.add_argument("--markup", choices=("reject", "escape"), default="reject", help=MARKUP_HELP)
    parser.add_argument("--max-pixels", type=int, default=64_000_000, help="of an image; larger ones are rejected")
    parser.add_argument(
        "--max-rejected", type=float, default=0.05, help="exit with 1 above this share of bad rows, duplicates aside"
    )
    parser.add_argument("--workers", type=int, default=2, help="threads that decode images (default 2)")
    columns = parser.add_argument_group("columns of the source `columns`")
    columns.add_argument("--question-column", default="question")
    columns.add_argument("--answer-column", default="answer")
    columns.add_argument("--images-column")
    columns.add_argument("--options-column")
    columns.add_argument("--answer-index", choices=INDEXES, default="detect", help=INDEX_HELP)
    columns.add_argument("--several-answers", choices=SEVERAL, default="reject", help=SEVERAL_HELP)
    columns.add_argument("--response-column")
    columns.add_argument("--evidence-column", help=EVIDENCE_HELP)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        source = find(args.source)
        if args.schema:
            print(sys.modules[source.draft.__module__].__doc__)
            return 0
        if args.out is None:
            parser.error("OUT is missing: the folder for the files")
        if source.name == "columns":
            source = Columns.of_arguments(args).source()

        from data_tools.convert.run import Options, run

        options = Options(
            images=args.images,
            benchmark=args.benchmark,
            shared_images=args.shared_images,
            max_pixels=args.max_pixels,
            workers=args.workers,
            markup=args.markup,
        )
        report = run(source, args.out, args.data, args.split, options)
    except (ValueError, OSError) as error:
        print(f"avar convert: {error}", file=sys.stderr)
        return 2
    return report.exit_status(args.max_rejected)


if __name__ == "__main__":
    raise SystemExit(main())
