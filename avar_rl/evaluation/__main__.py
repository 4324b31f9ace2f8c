"""Evaluate models: `python -m avar_rl.evaluation base=DIR sft=DIR --data test.parquet --out OUT [--limit N]`.

For each model OUT/NAME.json (figures) and OUT/NAME.responses.jsonl (every response, graded). A model whose file is
there already, from the same weights, data and settings, is not evaluated again. With --intervene every model answers
twice, without and with the intervention, and the difference is printed with a paired bootstrap interval.
"""

import argparse
import faulthandler
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


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


def fingerprint(path: str) -> dict[str, list[int]]:
    """File name → [bytes, time of change in ns], of a file or of a directory's files; {} for a name on the hub."""
    files = [Path(path)] if Path(path).is_file() else sorted(Path(path).glob("*"))
    return {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.is_file()}


def evaluate(name: str, model: str, options: argparse.Namespace) -> dict[str, Any]:
    """Evaluates one model and writes its files; returns what is in OUT/NAME.json. ValueError: bad input."""
    from dataclasses import asdict

    from avar_rl.attention.roles import Markup
    from avar_rl.evaluation.answering.questions import check_weights, load_processor, load_questions
    from avar_rl.evaluation.intervened import compare
    from avar_rl.runtime.files import write_json

    settings = _settings(options)
    origin = {
        "model": {"path": model, "files": fingerprint(model)},
        "data": {"path": str(options.data), "limit": options.limit, "files": fingerprint(str(options.data))},
        "generation": asdict(settings),
        "intervene": options.intervene and str(options.intervene),
    }
    path = options.out / f"{name}.json"
    if path.is_file() and (before := json.loads(path.read_text())).get("origin") == json.loads(json.dumps(origin)):
        print(f"{name}: evaluated before ({path})", flush=True)
        return before

    check_weights(model)
    processor = load_processor(model)
    Markup.from_tokenizer(processor.tokenizer)  # refuses a model type without span support before minutes are spent
    data = load_questions(options.data, processor, options.limit)
    graded, result = _run(name, model, data, processor, settings, options)
    if options.intervene:
        changed = _settings(options, intervention=options.intervene)
        graded_with, result_with = _run(f"{name}.intervened", model, data, processor, changed, options)
        result["intervention"] = compare(graded, graded_with) | {"figures": result_with}
    result |= {"origin": origin}
    write_json(path, result)
    return result


def _settings(options: argparse.Namespace, **more):
    from avar_rl.evaluation.answering.generate import GenerationSettings
    from avar_rl.runtime.settings import parse

    names = ("max_new_tokens", "samples", "temperature", "seed", "tensor_parallel")
    return parse(GenerationSettings, {setting: getattr(options, setting) for setting in names} | more, "")


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
    parser.add_argument("--data", type=Path, required=True, help="parquet file of RL rows")
    parser.add_argument("--out", type=Path, required=True, help="directory for the results")
    parser.add_argument("--limit", type=int, help="evaluate the first N rows (default: all)")
    parser.add_argument("--samples", type=int, default=4, help="sampled responses per question (default 4)")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the samples (default 1)")
    parser.add_argument("--max-new-tokens", type=int, default=1024, help="limit of a response (default 1024)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vas-batch-size", type=int, help="prompts per forward pass (default: what memory holds)")
    parser.add_argument("--tensor-parallel", type=int, default=1, help="GPUs that share a model (default 1)")
    parser.add_argument(
        "--minutes", type=float, default=0, help="stop with all stacks after this long (default: never)"
    )
    parser.add_argument(
        "--intervene",
        metavar="img=0.15,sys=0.05,mode=weight",
        help="evaluate a second time with the training-free intervention (mode weight or logit; layers=0-13+20)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    if options.minutes > 0:  # a hang in native code answers to nothing gentler
        faulthandler.dump_traceback_later(60 * options.minutes, exit=True)
    try:
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
        results = [evaluate(name, model, options) for name, model in models.items()]
    except ValueError as error:
        print(f"avar evaluate: {error}", file=sys.stderr)
        return 2
    from avar_rl.evaluation.intervened import print_comparison
    from avar_rl.evaluation.result import print_table

    print_table([figures for result in results for figures in _rows_of(result)])
    if options.intervene:
        print_comparison(results, str(options.intervene))
    return 0


if __name__ == "__main__":
    sys.exit(main())
