"""Evaluate models: `python -m avar_rl.evaluation base=DIR sft=DIR --data test.parquet --out OUT [--limit N]`.

For each model OUT/NAME.json (figures) and OUT/NAME.responses.jsonl (every response, graded). A model whose file is
there already, from the same weights, data and settings, is not evaluated again. With --intervene every model answers
twice, without and with the intervention, and the difference is printed with a paired bootstrap interval; with
--only-intervened it answers with the intervention alone.

With --benchmarks mathvista,mmmu (or all: the paper's seven) instead of --data: public benchmarks, scored by their own
rules and by this project's. OUT/NAME/ gets every response as soon as it is there, and the same command goes on where it
was stopped; OUT/benchmarks.json, OUT/benchmarks.md and a page for each model report.
"""

import argparse
import errno
import faulthandler
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avar_rl.evaluation.evaluate_benchmarks import OPTIONS, add_options


def parse_models(arguments: Sequence[str]) -> dict[str, str]:
    """`NAME=MODEL` or `MODEL` (then named after its last part) → name: model. ValueError: a bad or repeated name."""
    models: dict[str, str] = {}
    for argument in arguments:
        name, separator, model = argument.partition("=")
        if not separator:
            name, model = Path(argument).name, argument
        if not model or not re.fullmatch(r"[\w.-]+", name):
            raise ValueError(f"{argument!r} is not NAME=MODEL, with a name of letters, digits, '_', '-' and '.'")
        if name in models:
            raise ValueError(f"two models are called {name}; write NAME=MODEL with different names")
        models[name] = model
    return models


def evaluate(name: str, model: str, options: argparse.Namespace) -> dict[str, Any]:
    """Evaluates one model and writes its files; returns what is in OUT/NAME.json. ValueError: bad input."""
    from dataclasses import asdict

    from avar_rl.attention.roles import Markup
    from avar_rl.evaluation.answering.questions import check_weights, load_processor, load_questions
    from avar_rl.evaluation.intervened import compare
    from avar_rl.runtime.files import file_stamps, write_json

    settings = _settings(options)
    origin = {
        "model": {"path": model, "files": file_stamps(model)},
        "data": {"path": str(options.data), "limit": options.limit, "files": file_stamps(str(options.data))},
        "generation": asdict(settings),
        "intervene": options.intervene and str(options.intervene),
    }
    if options.only_intervened:
        origin["only_intervened"] = True
    path = options.out / f"{name}.json"
    if path.is_file() and (before := json.loads(path.read_text())).get("origin") == json.loads(json.dumps(origin)):
        print(f"{name}: evaluated before ({path})", flush=True)
        return before

    check_weights(model)
    processor = load_processor(model)
    Markup.from_tokenizer(processor.tokenizer)  # refuses a model type without span support before minutes are spent
    data = load_questions(options.data, processor, options.limit)
    changed = _settings(options, intervention=options.intervene) if options.intervene else settings
    first = changed if options.only_intervened else settings
    graded, result = _run(name, model, data, processor, first, options)
    if options.intervene and not options.only_intervened:
        graded_with, result_with = _run(f"{name}.intervened", model, data, processor, changed, options)
        result["intervention"] = compare(graded, graded_with) | {"figures": result_with}
    result |= {"origin": origin}
    write_json(path, result)
    return result


def _settings(options: argparse.Namespace, **more):
    from avar_rl.evaluation.answering.generate import GenerationSettings
    from avar_rl.runtime.settings import parse

    names = ("max_new_tokens", "samples", "temperature", "seed", "tensor_parallel", "batch")
    return parse(GenerationSettings, {setting: getattr(options, setting) for setting in names} | more, "")


def check_arguments(argv: Sequence[str]) -> dict[str, str]:
    """Checks a command line as far as no model is needed for it, and returns the models that it names.

    Raises:
        ValueError: a mistake in it; what argparse has to say is on standard error by then.
    """
    try:
        options = _parser().parse_args(argv)
    except SystemExit as error:
        raise ValueError("avar evaluate cannot read its options (above)") from error
    _with_defaults(options)
    models = parse_models(options.models)
    if options.benchmarks is not None:
        from avar_rl.evaluation.evaluate_benchmarks import asking_of

        asking_of(models, options, _settings(options))
    return models


def _run(name: str, model: str, data, processor, settings, options: argparse.Namespace):
    """One model under one setting: its graded responses, which are written, and its figures."""
    from avar_rl.evaluation.answering.generate import generate
    from avar_rl.evaluation.answering.visual_attention import measure
    from avar_rl.evaluation.result import figures, grade, write_responses

    times = [time.monotonic()]
    responses = generate(model, data, processor, settings)
    times.append(time.monotonic())
    graded = grade(data.questions, responses)
    times.append(time.monotonic())
    size, intervention = options.vas_batch_size, settings.intervention
    vas = measure(model, data.questions, processor, batch_size=size, intervention=intervention)
    times.append(time.monotonic())
    parts = ("generate", "grade", "attention")
    seconds = {part: round(end - start, 2) for part, start, end in zip(parts, times, times[1:], strict=False)}
    write_responses(graded, options.out / f"{name}.responses.jsonl")
    spent = ", ".join(f"{part} {s} s" for part, s in seconds.items())
    print(f"{name}: {len(data.questions)} questions, {spent}", flush=True)
    return graded, figures(name, graded, vas) | {"seconds": seconds}


def _rows_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [result, result["intervention"]["figures"]] if "intervention" in result else [result]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="avar evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL", help="model directory or hub name")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", type=Path, help="parquet file of RL rows")
    what.add_argument("--benchmarks", metavar="NAME,…", help="benchmarks by name; all: the paper's seven")
    parser.add_argument("--out", type=Path, required=True, help="directory for the results")
    parser.add_argument("--limit", type=int, help="the first N rows, or of each part of a benchmark (default: all)")
    parser.add_argument("--samples", type=int, help="sampled responses per question (default 4; benchmarks: 0)")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the samples (default 1)")
    parser.add_argument("--max-new-tokens", type=int, help="limit of a response (default 1024; benchmarks: 8192)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vas-batch-size", type=int, help="prompts per forward pass (default: what memory holds)")
    parser.add_argument("--tensor-parallel", type=int, default=1, help="GPUs that share a model (default 1)")
    parser.add_argument("--batch", type=int, default=256, help="responses that an engine works at (default 256)")
    parser.add_argument(
        "--minutes", type=float, default=0, help="stop with all stacks after this long (default: never)"
    )
    parser.add_argument(
        "--intervene",
        metavar="img=0.15,sys=0.05,mode=weight",
        help="evaluate a second time with the training-free intervention (mode weight or logit; layers=0-13+20)",
    )
    parser.add_argument(
        "--only-intervened", action="store_true", help="with --data and --intervene: not without it as well"
    )
    add_options(parser)
    return parser


def _with_defaults(options: argparse.Namespace) -> None:
    """Fills in what depends on what is asked. ValueError: an option without the one that it goes with."""
    if options.only_intervened and (options.data is None or not options.intervene):
        raise ValueError("--only-intervened goes with --data and --intervene")
    defaults = {"samples": 0, "max_new_tokens": 8192, "prompts": "official", "replicas": 1, "benchmark_data": []}
    if options.data is not None:
        named = [name for name in OPTIONS if getattr(options, name) not in (None, False)]
        if named:
            raise ValueError(f"--{named[0].replace('_', '-')} goes with --benchmarks, not with --data")
        defaults = {"samples": 4, "max_new_tokens": 1024}
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    if options.minutes > 0:  # a hang in native code answers to nothing gentler
        faulthandler.dump_traceback_later(60 * options.minutes, exit=True)
    try:
        _with_defaults(options)
        models = parse_models(options.models)
        from avar_rl.runtime.environment import prepare_environment

        prepare_environment()
        if options.intervene:
            from avar_rl.intervention import Intervention

            options.intervene = Intervention.parse(options.intervene)
        try:
            options.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"--out {options.out}: not a directory that can be written ({error.strerror})") from error
        if options.benchmarks is not None:
            from avar_rl.evaluation.evaluate_benchmarks import evaluate_benchmarks

            return evaluate_benchmarks(models, options, _settings(options))
        results = [evaluate(name, model, options) for name, model in models.items()]
    except ValueError as error:
        print(f"avar evaluate: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        again = "what is written there is kept: make room, and run the same command again"
        print(f"avar evaluate: {options.out}: {error.strerror}; {again}", file=sys.stderr)
        return 2
    from avar_rl.evaluation.intervened import print_comparison
    from avar_rl.evaluation.result import print_table

    print_table([figures for result in results for figures in _rows_of(result)])
    if options.intervene and not options.only_intervened:
        print_comparison(results, str(options.intervene))
    return 0


if __name__ == "__main__":
    sys.exit(main())
