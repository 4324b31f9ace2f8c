"""The direction of imports: the maths, the rewards and the data tools know nothing of verl, Ray or vLLM."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PURE = [
    *(ROOT / "avar_rl" / name for name in ("spans.py", "attention.py", "vas.py", "guidance.py", "intervention.py")),
    *(ROOT / "avar_rl" / "span_mass").rglob("*.py"),
    *(ROOT / "avar_rl" / "probe").rglob("*.py"),
    *(ROOT / "rewards").rglob("*.py"),
    *(path for path in (ROOT / "data_tools").rglob("*.py") if not path.name.startswith("ray_")),
]


def imported(path: Path) -> set[str]:
    """Dotted names of everything a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction of imports"
            names.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return names


def test_pure_modules_import_no_trainer():
    assert len(PURE) > 8
    for path in PURE:
        packages = {name.split(".")[0] for name in imported(path)}
        assert not packages & {"verl", "ray", "vllm"}, path


def test_only_the_plug_in_imports_verl_and_nobody_imports_the_plug_in():
    for path in [*(ROOT / "avar_rl").rglob("*.py"), *PURE]:
        if (ROOT / "avar_rl" / "verl_plugin") in path.parents:
            continue
        names = imported(path)
        assert not {name for name in names if name.split(".")[0] == "verl"}, path
        assert not {name for name in names if name.startswith("avar_rl.verl_plugin")}, path
