"""The `avar` command: its names, its errors in one sentence, and that a help text imports nothing of the stack."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from avar_rl import cli

ROOT = Path(__file__).parents[2]
NAMES = [name for group in cli.COMMANDS.values() for name in group]
ASKED_FOR = "sft grpo evaluate probe export grade try-reward convert prepare validate inspect synthesize rollouts"
# What takes more than the half second that a help text may take, or brings one of these.
HEAVY = {
    "aiohttp",
    "datasets",
    "hydra",
    "numpy",
    "omegaconf",
    "openai",
    "pandas",
    "pyarrow",
    "pydantic",
    "ray",
    "sympy",
}
HEAVY |= {"tensordict", "tokenizers", "torch", "transformers", "verl", "vllm"}


def avar(*arguments: str, python: tuple[str, ...] = (), **options) -> subprocess.CompletedProcess:
    command = [sys.executable, *python, "-m", "avar_rl", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"} | options.pop("env", {})
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, **options)


@pytest.fixture
def command(monkeypatch):
    """`command(main)` makes `avar grade` call `main`, in this process."""
    monkeypatch.setattr(sys, "argv", ["avar"])

    def replace(main):
        monkeypatch.setattr("rewards.grade.main", main)

    return replace


def test_every_command_asked_for_is_there():
    assert set(ASKED_FOR.split()) <= set(NAMES)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in NAMES)], ids=" ".join)
def test_a_help_text_imports_nothing_heavy(arguments):
    done = avar(*arguments, python=("-X", "importtime"))
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    modules = {line.rpartition("|")[2].strip() for line in lines}
    assert "avar_rl.cli" in modules
    assert not {module.partition(".")[0] for module in modules} & HEAVY


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_a_command_says_how_it_is_called(name):
    words = avar(name, "--help").stdout.split()
    assert words[0] == "usage:" and words[1:3] == ["avar", name]


def test_help_lists_every_command_on_a_line_of_80_columns():
    done = avar("--help")
    for group, commands in cli.COMMANDS.items():
        assert f"\n\n{group}:\n" in done.stdout
        for name, (_, line) in commands.items():
            assert any(text.split(maxsplit=1) == [name, line] for text in done.stdout.splitlines())
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_version_is_that_of_the_package():
    assert avar("--version").stdout == f"avar {importlib.metadata.version('avar-rl')}\n"


def test_versions_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr("avar_rl.runtime.versions.STACK", {"pytest": ("pytest",), "mars": ("mars-cpu", "mars")})
    assert cli.main(["versions"]) == 0
    pytest_line, mars_line = capsys.readouterr().out.splitlines()[1:]
    assert pytest_line.split() == ["pytest", importlib.metadata.version("pytest")]
    assert mars_line.split() == ["mars", "not", "installed"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [("grdae", "did you mean grade?"), ("tryreward", "did you mean try-reward?"), ("xyz", "`avar --help` lists them")],
)
def test_an_unknown_command_gets_a_suggestion(name, meant, capsys):
    assert cli.main([name]) == 2
    assert capsys.readouterr().err == f"avar: no command '{name}'; {meant}\n"


def test_no_command_is_a_mistake_and_shows_the_help(capsys):
    assert cli.main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("usage: avar COMMAND")


def test_a_wrong_option_is_a_mistake():
    done = avar("grade", "--no-such-option")
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr


@pytest.mark.parametrize(("given", "status"), [(None, 0), (0, 0), (1, 1), (2, 2)])
def test_the_status_of_a_command_is_that_of_its_main(given, status, command):
    command(lambda argv: given)
    assert cli.main(["grade"]) == status


def test_a_command_gets_its_own_arguments_and_name(command):
    seen = []
    command(lambda argv: seen.append((argv, list(sys.argv))))
    cli.main(["grade", "1/2", "--form", "x"])
    assert seen == [(["1/2", "--form", "x"], ["avar grade", "1/2", "--form", "x"])]


@pytest.mark.parametrize(
    ("name", "module", "package", "extras"),
    [
        ("probe", "avar_rl.probe.__main__", "torch", "'.[models]'"),
        ("sft", "avar_rl.verl_plugin.sft.run", "torch", "'.[cpu]' or '.[gpu]'"),
        ("synthesize", "data_tools.synthesis.__main__", "ray.data", "'.[cpu]' or '.[gpu]'"),
    ],
)
def test_what_is_not_installed_is_one_sentence(name, module, package, extras, monkeypatch, capsys):
    def main(argv):
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr(f"{module}.main", main)
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    monkeypatch.setattr(sys, "argv", ["avar"])
    assert cli.main([name]) == 2
    assert capsys.readouterr().err == (
        f"avar {name}: needs {package.partition('.')[0]}, which is not installed; in a checkout of avar_rl run "
        f"recipes/setup.sh, which installs everything, or pip install {extras}\n"
    )


@pytest.mark.parametrize("module", ["torch.no_such_part", "avar_rl.no_such_part", "somebodys_package"])
def test_a_fault_in_the_code_is_not_called_a_missing_package(module, command):
    def main(argv):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    command(main)
    with pytest.raises(ModuleNotFoundError, match=module):
        cli.main(["grade"])


def test_ctrl_c_is_130_and_no_traceback(command, capsys):
    def main(argv):
        raise KeyboardInterrupt

    command(main)
    assert cli.main(["grade"]) == 130
    assert capsys.readouterr().err == "avar grade: interrupted\n"


@pytest.mark.parametrize("arguments", [["--help"], ["grade", "--help"], ["grade", "1/2", "0.5"]], ids=" ".join)
def test_a_closed_pipe_is_no_traceback(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        command = [sys.executable, "-m", "avar_rl", *arguments]
        done = subprocess.run(command, cwd=ROOT, stdout=closed, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.stderr == "" and done.returncode in (0, 1)  # argparse itself drops what nobody reads


def test_a_broken_pipe_of_something_else_is_a_fault(command, monkeypatch):
    def main(argv):
        raise BrokenPipeError

    command(main)
    monkeypatch.setattr(cli, "_reader_is_gone", lambda: False)
    with pytest.raises(BrokenPipeError):
        cli.main(["grade"])
