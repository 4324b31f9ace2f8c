"""The `avar` command: one short name for everything a user runs, `avar COMMAND …` for `python -m MODULE …`.

A table and nothing more: the command's module is imported when its name is read, so `avar --help` imports nothing of
the stack. Exit status: 0 done, 1 done with findings or failed, 2 a user's mistake (said in one sentence), 130 Ctrl-C.
"""

import difflib
import importlib.util
import os
import select
import sys
from collections.abc import Sequence

# group -> command -> (module with `main(argv) -> int | None`, its line in the help)
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "train": {
        "base": ("avar_rl.base_model", "a model with limits of pixels, which all stages then obey"),
        "sft": ("avar_rl.verl_plugin.sft.run", "cold start: verl's SFT with the attention-guided loss"),
        "grpo": ("avar_rl.verl_plugin.grpo.run", "reinforcement: verl's GRPO on Ray with the combined reward"),
        "export": ("avar_rl.export", "the newest checkpoint of a training as a Hugging Face directory"),
    },
    "look at models and runs": {
        "evaluate": ("avar_rl.evaluation.__main__", "accuracy and visual attention of models, on rows or benchmarks"),
        "score": (
            "avar_rl.evaluation.benchmarks.scoring.score",
            "stored responses to benchmarks, by rules and by a judge",
        ),
        "report": (
            "avar_rl.evaluation.benchmarks.reporting.report",
            "benchmarks beside published scores, and every question",
        ),
        "compare": (
            "avar_rl.evaluation.benchmarks.reporting.compare",
            "two models on the same questions of benchmarks",
        ),
        "probe": ("avar_rl.probe.__main__", "how much a model looks at images, by layer and head"),
        "rollouts": ("avar_rl.rollouts.__main__", "what GRPO sampled, as one HTML page"),
        "study": ("avar_rl.study.__main__", "arms x seeds of a recipe, and a page of what they give"),
        "summary": ("avar_rl.evaluation.summary", "the figures of a recipe's run in one table"),
        "same-text": ("avar_rl.evaluation.same_text", "whether vLLM and transformers answer alike"),
        "dashboard": ("avar_rl.verl_plugin.watch.grafana", "the Grafana dashboard of a training, as JSON"),
    },
    "rewards": {
        "grade": ("rewards.grade", "whether answers are equivalent to gold answers"),
        "try-reward": ("rewards.try", "what rewards give on real rows, without training"),
    },
    "data": {
        "convert": ("data_tools.convert.__main__", "public data sets, or your own columns, into files of samples"),
        "prepare": ("data_tools.prepare", "files of samples into the rows that training reads"),
        "difficulty": ("avar_rl.evaluation.difficulty", "pass rates of a model on rows, to choose them by"),
        "validate": ("data_tools.validate", "rows against a model's processor and a limit of tokens"),
        "inspect": ("data_tools.inspect", "figures and a contact sheet of a file"),
        "synthesize": ("data_tools.synthesis.__main__", "anchored synthesis of worked responses by a teacher model"),
    },
}
# What is not installed with avar-rl itself, by import name, and the extras of pyproject.toml that bring it.
MODELS = ("matplotlib", "peft", "safetensors", "torch", "torchvision", "transformers", "triton")
TRAINING = ("hydra", "ray", "tensordict", "transfer_queue", "verl", "vllm", "wrapt", "xxhash")
TRAINERS = ("sft", "grpo", "evaluate", "difficulty", "same-text")  # commands that need all of it


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that `argv` (default: the process's arguments) names and returns its exit status."""
    name, *rest = [*(sys.argv[1:] if argv is None else argv)] or [""]
    try:
        try:
            return _run(name, rest)
        finally:
            sys.stdout.flush()  # here, where a closed pipe can still be answered
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
        return 1
    except KeyboardInterrupt:
        print(f"avar {name}: interrupted", file=sys.stderr)
        return 130


def _run(name: str, rest: list[str]) -> int:
    if not name:
        print(_help(), file=sys.stderr)
        return 2
    if name in _OWN:
        print(_OWN[name]())
        return 0
    modules = {command: module for group in COMMANDS.values() for command, (module, _) in group.items()}
    if name not in modules:
        near = difflib.get_close_matches(name, modules, n=2)
        meant = f"did you mean {' or '.join(near)}?" if near else "`avar --help` lists them"
        print(f"avar: no command {name!r}; {meant}", file=sys.stderr)
        return 2
    sys.argv = [f"avar {name}", *rest]  # argparse reads the program's name here
    try:
        return importlib.import_module(modules[name]).main(rest) or 0
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in MODELS + TRAINING or importlib.util.find_spec(package):
            raise
        extras = "'.[cpu]' or '.[gpu]'" if name in TRAINERS or package in TRAINING else "'.[models]'"
        how = f"in a checkout of avar_rl run recipes/setup.sh, which installs everything, or pip install {extras}"
        print(f"avar {name}: needs {package}, which is not installed; {how}", file=sys.stderr)
        return 2


def _help() -> str:
    width = max(len(command) for group in COMMANDS.values() for command in group)
    lines = ["usage: avar COMMAND …", "", "Trains vision-language models that look before they answer."]
    for group, commands in COMMANDS.items():
        lines += ["", f"{group}:", *(f"  {command:<{width}}  {line}" for command, (_, line) in commands.items())]
    lines += ["", "`avar COMMAND --help` explains a command.", "`avar versions` lists the software that is installed."]
    return "\n".join(lines)


def _version() -> str:
    from importlib.metadata import version

    return f"avar {version('avar-rl')}"


def _versions() -> str:
    """Every part of the stack with its version, read from metadata: nothing of it is imported."""
    import platform
    from importlib.metadata import PackageNotFoundError

    from avar_rl.runtime.versions import STACK, installed_version

    lines = [f"{'python':<14} {platform.python_version()}"]
    for name, distributions in STACK.items():
        try:
            lines.append(f"{name:<14} {installed_version(distributions)}")
        except PackageNotFoundError:
            lines.append(f"{name:<14} not installed")
    return "\n".join(lines)


_OWN = {"-h": _help, "--help": _help, "--version": _version, "versions": _versions}


def _reader_is_gone() -> bool:
    """Whether standard output is a pipe that nobody reads any more; another broken pipe is a fault."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


if __name__ == "__main__":
    sys.exit(main())
