"""Score stored responses to benchmarks: `avar score OUT [--judge URL --judge-model NAME]`. Needs no model and no data.

Reads OUT/NAME/BENCHMARK.responses.jsonl of every model and writes OUT/NAME/BENCHMARK.scored.jsonl and
OUT/benchmarks.json: two columns, `official` (the benchmark's own rules) and `ours` (this project's grader), each number
with its interval; and a third, `judge`, where an OpenAI-compatible endpoint is given, for the benchmarks whose official
rules ask a model. Its key is read from the environment variable OPENAI_API_KEY, or the one named by --judge-key-env;
its replies are kept in OUT/judge.jsonl, so that a second run asks nothing twice. Exit status: 1 where a benchmark could
not be scored.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avar_rl.evaluation.benchmarks.benchmark import Benchmark
    from avar_rl.evaluation.benchmarks.scoring.judge import JudgePrompts
    from avar_rl.evaluation.benchmarks.scoring.judge_replies import JudgeAddress
    from data_tools.formats.sample import DataSample

RESULTS = "benchmarks.json"
_RESPONSES = ".responses.jsonl"


@dataclass(frozen=True)
class Judge:
    """A judge, and what it is asked with."""

    address: JudgeAddress
    prompts: JudgePrompts


def score_models(out: Path, names: Sequence[str] = (), judge: Judge | None = None) -> tuple[dict[str, Any], list[str]]:
    """Scores the stored responses of models (all of `out` where `names` are none), and writes OUT/benchmarks.json.

    Returns:
        What is in it, and a sentence for each benchmark of a model that could not be scored.

    Raises:
        ValueError: no responses in `out`, or no such model.
    """
    from avar_rl.evaluation.benchmarks.benchmark import ALL, chosen
    from avar_rl.evaluation.benchmarks.scoring.totals import mean_of
    from avar_rl.runtime.files import write_json
    from avar_rl.runtime.versions import stack_versions

    seven = [benchmark.name for benchmark in chosen([ALL])]
    results, problems = _results_there(out), []
    for name in _models(out, names):
        benchmarks: dict[str, Any] = {}
        for benchmark in _answered(out / name):
            try:
                benchmarks[benchmark] = score_benchmark(out, name, benchmark, judge)
            except ValueError as error:
                problems.append(f"{name}: {error}")
        results["models"][name] = {"benchmarks": benchmarks, "mean": mean_of(benchmarks, seven)}
    results |= {"versions": stack_versions(), "date": datetime.now(UTC).isoformat(timespec="seconds")}
    write_json(out / RESULTS, results)
    return results, problems


def _results_there(out: Path) -> dict[str, Any]:
    """The results of an earlier run, whose other models stay."""
    path = out / RESULTS
    there = _json(path) if path.is_file() else {"models": {}}
    if not isinstance(there, dict) or not isinstance(there.get("models"), dict):
        raise ValueError(f"{path} is no file of results: move it away")
    return {"models": there["models"]}


def _models(out: Path, names: Sequence[str]) -> list[str]:
    found = sorted({path.parent.name for path in out.glob(f"*/*{_RESPONSES}")})
    if not found:
        raise ValueError(f"{out} holds no responses (NAME/BENCHMARK{_RESPONSES}); `avar evaluate` draws them")
    if unknown := [name for name in names if name not in found]:
        raise ValueError(f"{out}: no responses of a model {unknown[0]!r}; there are {', '.join(found)}")
    return list(names) or found


def _answered(folder: Path) -> list[str]:
    """The benchmarks of which a model's folder has responses, in the order of the registry, then unknown names."""
    from avar_rl.evaluation.benchmarks.benchmark import BENCHMARKS

    found = sorted(path.name.removesuffix(_RESPONSES) for path in folder.glob(f"*{_RESPONSES}"))
    return [*(name for name in BENCHMARKS if name in found), *(name for name in found if name not in BENCHMARKS)]


def score_benchmark(out: Path, name: str, benchmark_name: str, judge: Judge | None = None) -> dict[str, Any]:
    """Scores the responses of a model to a benchmark, writes the scored file, and returns the figures.

    Raises:
        ValueError: an unknown benchmark, files missing or damaged, or questions without a response.
    """
    from avar_rl.evaluation.benchmarks.asking.records import (
        origin_path,
        read_records,
        samples_path,
        scored_path,
        vas_path,
    )
    from avar_rl.evaluation.benchmarks.benchmark import find
    from avar_rl.evaluation.benchmarks.scoring.both_columns import score_all
    from avar_rl.evaluation.benchmarks.scoring.scored import scored_set
    from avar_rl.evaluation.benchmarks.scoring.totals import figures
    from avar_rl.runtime.files import write_whole
    from data_tools.formats.sample import read_samples

    benchmark, folder = find(benchmark_name), out / name
    samples = list(read_samples(samples_path(folder, benchmark_name), with_images=False))
    by_id, records = {sample.id: sample for sample in samples}, read_records(folder, benchmark_name)
    scored = score_all(benchmark_name, by_id, records)
    asked = _ask(judge, benchmark, by_id, records, scored, out) if judge else None
    results = scored_set(benchmark, samples, scored)
    lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in scored)
    write_whole(scored_path(folder, benchmark_name), lines.encode("utf-8", "replace"))
    vas = vas_path(folder, benchmark_name)
    measured = _json(vas) if vas.is_file() else None
    found = figures(results, records, _json(origin_path(folder, benchmark_name)), measured)
    if asked:
        found["columns"]["judge"] |= {"by": asked}
    return found


def _ask(
    judge: Judge,
    benchmark: Benchmark,
    samples: Mapping[str, DataSample],
    records: Sequence[Mapping[str, Any]],
    scored: Sequence[dict[str, Any]],
    out: Path,
) -> dict[str, Any] | None:
    """Adds the judge's word to the scored lines; None where the benchmark's official rules ask no model."""
    from avar_rl.evaluation.benchmarks.scoring.judge import JUDGES, judge_all

    if benchmark.name not in JUDGES:
        return None
    judged, asked = judge_all(benchmark.name, samples, records, judge.address, judge.prompts, out)
    for line, said in zip(scored, judged, strict=True):
        line["judge"] = asdict(said)
    if asked["trouble"]:
        failed = sum(said.failed for said in judged)
        print(
            f"{benchmark.name}: the judge {judge.address.model} said nothing of use on {failed:,} of {len(judged):,} "
            f"responses, the last time because {asked['trouble']}; these count as not right, and as judge_failed",
            file=sys.stderr,
        )
    return asked


def _json(path: Path) -> Any:
    """The content of a JSON file. ValueError: it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error})") from error


def summary(name: str, benchmark: str, figures: Mapping[str, Any]) -> str:
    """The figures of a benchmark on one line."""
    from avar_rl.evaluation.benchmarks.scoring.totals import reported

    parts = []
    for column, found in figures["columns"].items():
        if found is not None:
            metric, first = next(iter(reported(found).items()))
            low_high = f" [{first.interval[0]:.1%}, {first.interval[1]:.1%}]" if first.interval else ""
            parts.append(f"{column} {first.value:.1%}{low_high}{'' if metric == 'accuracy' else f' ({metric})'}")
    n, official_n = figures["n"], figures["official_n"]
    parts.append(f"n {n:,}" if not figures["limited"] else f"LIMITED to {n:,} of {official_n:,} questions")
    parts += [f"{number:,} {what.replace('_', ' ')}" for what, number in figures["counts"].items() if number]
    return f"{name}, {benchmark}: {', '.join(parts)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="avar score", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder of an evaluation")
    parser.add_argument("--models", nargs="+", default=(), metavar="NAME", help="only these (default: all)")
    add_judge(parser)
    return parser


def add_judge(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a judge to a command's parser."""
    group = parser.add_argument_group("judge")
    group.add_argument("--judge", metavar="URL", help="an OpenAI-compatible endpoint, such as http://judge:8000/v1")
    group.add_argument("--judge-model", metavar="NAME", help="the judge's name at the endpoint")
    group.add_argument("--judge-key-env", default="OPENAI_API_KEY", metavar="VARIABLE", help="holds the key, if any")
    group.add_argument("--judge-prompts", type=Path, metavar="DIR", help="prompts of your own, named as ours")
    group.add_argument("--judge-concurrency", type=int, default=16, metavar="N", help="requests at once (default 16)")
    group.add_argument("--judge-max-tokens", type=int, default=1024, metavar="N", help="of a reply (default 1024)")


def judge_of(options: argparse.Namespace) -> Judge | None:
    """The judge that the options name, if any. ValueError: half of it is named, or a prompt is missing."""
    from avar_rl.evaluation.benchmarks.scoring.judge import PROMPTS, JudgePrompts
    from avar_rl.evaluation.benchmarks.scoring.judge_replies import JudgeAddress

    if (options.judge is None) != (options.judge_model is None):
        raise ValueError("--judge and --judge-model belong together: the endpoint's address, and its model's name")
    if options.judge is None:
        return None
    address = JudgeAddress(
        options.judge,
        options.judge_model,
        key_env=options.judge_key_env,
        concurrency=options.judge_concurrency,
        max_tokens=options.judge_max_tokens,
    )
    return Judge(address, JudgePrompts.of(options.judge_prompts or PROMPTS))


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    try:
        results, problems = score_models(options.out, options.models, judge_of(options))
    except (OSError, ValueError) as error:
        print(f"avar score: {error}", file=sys.stderr)
        return 2
    for name in options.models or results["models"]:
        for benchmark, found in results["models"][name]["benchmarks"].items():
            print(summary(name, benchmark, found))
    print(options.out / RESULTS)
    for problem in problems:
        print(f"avar score: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
