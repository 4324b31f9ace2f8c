"""The direction of imports, over every module of the project: who may know verl, Ray and vLLM, and no room in a circle.

A room is a folder with Python files. Rooms that lie in one another are rooms of their own.
"""

import ast
import subprocess
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("avar_rl", "rewards", "data_tools")
# The only modules beside avar_rl/verl_plugin that import one of the three, each with what it needs it for.
HEAVY = {
    "avar_rl.evaluation.answering.generate": {"vllm"},  # the engine that answers
    "avar_rl.evaluation.answering.vllm_intervention": {"vllm"},  # the intervention's model classes
    "avar_rl.evaluation.answering.replicas": {"ray"},  # several engines
    "avar_rl.study.launching": {"ray"},  # runs as tasks of a cluster
    "data_tools.synthesis.running.ray_run": {"ray"},  # the run on Ray Data
    "data_tools.synthesis.running.ray_engines": {"ray"},  # vLLM engines inside Ray
}
# Packages that import nothing of the others: the maths, and the rewards, can be tested in seconds.
PURE = (
    *("avar_rl.attention", "avar_rl.runtime", "avar_rl.vas", "avar_rl.blind", "avar_rl.guidance"),
    *("avar_rl.intervention", "rewards"),
)


def modules() -> dict[str, Path]:
    """Dotted name → file of every module that git knows, packages by their `__init__`."""
    listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [Path(line) for line in listed.splitlines() if line.endswith(".py") and (ROOT / line).is_file()]
    return {".".join(file.with_suffix("").parts).removesuffix(".__init__"): ROOT / file for file in files}


MODULES = modules()


def imported(path: Path) -> set[str]:
    """Dotted names of everything a file imports, anywhere in it; a module of ours by its own name."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: relative imports hide the direction of imports"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names.update(full & MODULES.keys(), () if full <= MODULES.keys() else {node.module})
    return names


IMPORTS = {name: imported(path) for name, path in MODULES.items()}


def test_every_module_is_covered():
    assert len(MODULES) > 150 and {name.split(".")[0] for name in MODULES} == set(PACKAGES)


def test_only_the_named_modules_import_verl_ray_or_vllm():
    packages = {
        name: {other.split(".")[0] for other in names} & {"verl", "ray", "vllm"} for name, names in IMPORTS.items()
    }
    assert {n: p for n, p in packages.items() if p and not n.startswith("avar_rl.verl_plugin")} == HEAVY


def test_nobody_imports_the_plug_in():
    for name, names in IMPORTS.items():
        if not name.startswith("avar_rl.verl_plugin"):
            assert not [other for other in names if other.startswith("avar_rl.verl_plugin")], name


def test_rewards_and_maths_import_only_each_other():
    for name, names in IMPORTS.items():
        if name.startswith(PURE):
            ours = [other for other in names if other.split(".")[0] in PACKAGES]
            assert all(other.startswith(PURE) for other in ours), (name, ours)


def test_no_rooms_import_each_other_in_a_circle():
    rooms = defaultdict(set)
    for name, names in IMPORTS.items():
        for other in names & MODULES.keys():
            here, there = MODULES[name].parent, MODULES[other].parent
            if here != there:
                rooms[here].add(there)
    assert not circle(rooms)


def circle(graph: dict[Path, set[Path]]) -> list[Path]:
    """Rooms that import each other in a circle; [] where there is none."""

    def below(room: Path, above: tuple[Path, ...]) -> list[Path]:
        if room in above:
            return [path.relative_to(ROOT) for path in (*above[above.index(room) :], room)]
        if room in done:
            return []
        for other in sorted(graph[room]):
            if found := below(other, (*above, room)):
                return found
        done.add(room)
        return []

    done: set[Path] = set()
    return next((found for room in sorted(graph) if (found := below(room, ()))), [])
