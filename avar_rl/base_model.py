"""A model with limits of pixels: `python -m avar_rl.base_model MODEL OUT [--min-pixels N] [--max-pixels N]`.

With `--system-prompt TEXT`, a chat template that writes no system turn by itself (Qwen3-VL's) is made to write one.
OUT is MODEL, by symbolic links to its weights and other files, with a processor of its own in which the limits are set.
Whatever loads OUT obeys them: the checks of the data, both trainings, vLLM, the evaluation and the probe. A larger
image is scaled down, a smaller one scaled up; a model exported with `--base OUT` has the same limits. Videos keep
MODEL's limits where MODEL has separate ones for them. The same holds for the chat template.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from avar_rl.runtime.chat_template import with_system_turn, writes_system_turn
from avar_rl.runtime.files import replacing, write_json
from avar_rl.runtime.hub import model_directory
from avar_rl.runtime.pixels import PixelLimits

# Where an image processor's settings stand: under `image_processor` as transformers 5 writes them, or at the top of a
# file of its own. Where both are there, the first one counts.
PROCESSOR, IMAGE_PROCESSOR = "processor_config.json", "preprocessor_config.json"
TEMPLATE, OLDER_TEMPLATE = "chat_template.jinja", "chat_template.json"  # the older one would overrule the other


def make_base(
    model: str, out: Path, *, least: int | None = None, most: int | None = None, system_prompt: str | None = None
) -> PixelLimits:
    """Writes the directory `out`, whole or not at all; one that an earlier call wrote is replaced.

    Args:
        model: a directory, or the name of a model on the hub, which is downloaded.
        out: the directory to write.
        least, most: the pixels of an image at least and at most; None keeps the model's own.
        system_prompt: what the chat template says in a system turn where a conversation has none; it is left as it is
            where it writes such a turn by itself, and for None.

    Returns:
        The limits of the new processor.

    Raises:
        ValueError: no such model, one without a processor of the Qwen-VL families, limits that no image can meet, or
            an `out` that is the model itself or something else, an empty system prompt, several chat templates.
    """
    from data_tools.validate import load_processor

    origin = _directory(model)
    _check_out(out, origin)
    own = PixelLimits.of(load_processor(origin).image_processor)
    limits = replace(own, least=own.least if least is None else least, most=own.most if most is None else most)
    _check(limits, model)
    with replacing(out) as partial:
        partial.mkdir()
        for file in sorted(origin.iterdir()):
            settings = _with_limits(file, limits)
            if settings is not None:
                write_json(partial / file.name, settings)
            elif not file.name.startswith("."):
                (partial / file.name).symlink_to(file)
        if system_prompt is not None:
            _write_system_turn(partial, system_prompt)
    return limits


def _write_system_turn(folder: Path, text: str) -> None:
    from data_tools.validate import load_processor

    if not text.strip():
        raise ValueError("--system-prompt is empty; give a text, or leave the option out")
    processor = load_processor(folder)
    if writes_system_turn(processor):
        return
    if not isinstance(processor.chat_template, str):
        raise ValueError(
            f"the model has {len(processor.chat_template)} chat templates, and --system-prompt can change one only; "
            "leave the option out and begin each row with a turn of the role system"
        )
    for name in (TEMPLATE, OLDER_TEMPLATE):
        (folder / name).unlink(missing_ok=True)
    (folder / TEMPLATE).write_text(with_system_turn(processor.chat_template, text), encoding="utf-8")


def _directory(model: str) -> Path:
    try:
        folder = model_directory(model)
    except (OSError, ValueError) as error:
        raise ValueError(f"{model}: neither a directory nor a model that the hub gives ({error})") from error
    if not (folder / "config.json").is_file():
        raise ValueError(f"{model}: no model (config.json is missing)")
    return folder.absolute()


def _check_out(out: Path, origin: Path) -> None:
    if out.resolve() == origin.resolve():
        raise ValueError(f"{out} is the model itself, which stays as it is; name another directory")
    if out.resolve().is_relative_to(origin.resolve()):
        raise ValueError(f"{out} is inside the model's directory {origin}; name a directory outside of it")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir() or not _is_base(out):
        raise ValueError(f"{out} is there and was not written by this command; name another directory, or remove it")


def _is_base(folder: Path) -> bool:
    """Whether `make_base` wrote a directory: links, but for the processor's settings and the chat template."""
    own = {file.name for file in folder.iterdir() if not file.is_symlink()}
    return bool(own) and own <= {PROCESSOR, IMAGE_PROCESSOR, TEMPLATE} and (folder / "config.json").is_symlink()


def _check(limits: PixelLimits, model: str) -> None:
    token = limits.side**2
    if limits.most < token:
        raise ValueError(
            f"--max-pixels {limits.most} is less than one image token of {model}, {limits.side} x {limits.side} = "
            f"{token} pixels; raise it"
        )
    if limits.least < 1:
        raise ValueError(f"--min-pixels {limits.least} is no number of pixels; it is at least 1")
    if limits.least > limits.most:
        raise ValueError(
            f"images cannot have at least {limits.least} and at most {limits.most} pixels; lower --min-pixels or raise "
            f"--max-pixels (what is not given is {model}'s own)"
        )


def _with_limits(file: Path, limits: PixelLimits) -> dict[str, Any] | None:
    """The contents of a file of settings with the limits in them; None where the file holds none of an image processor.

    `size` is what transformers 5 and vLLM read. Beside it the older names are set where the file has them: they would
    overrule it.
    """
    if file.name not in (PROCESSOR, IMAGE_PROCESSOR):
        return None
    settings = json.loads(file.read_text(encoding="utf-8"))
    images = settings if file.name == IMAGE_PROCESSOR else settings.get("image_processor")
    if images is None:
        return None
    images["size"] = {"shortest_edge": limits.least, "longest_edge": limits.most}
    older = {"min_pixels": limits.least, "max_pixels": limits.most}
    images |= {name: value for name, value in older.items() if name in images}
    return settings


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="avar base", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="model directory, or the name of a model on the hub")
    parser.add_argument("out", type=Path, help="directory to write")
    parser.add_argument("--min-pixels", type=int, metavar="N", help="smallest image, in pixels (default: MODEL's)")
    parser.add_argument("--max-pixels", type=int, metavar="N", help="largest image, in pixels (default: MODEL's)")
    parser.add_argument(
        "--system-prompt", metavar="TEXT", help="of conversations without one, where MODEL's chat template writes none"
    )
    args = parser.parse_args(argv)
    wanted = {"least": args.min_pixels, "most": args.max_pixels, "system_prompt": args.system_prompt}
    try:
        limits = make_base(args.model, args.out, **wanted)
    except (OSError, ValueError) as error:
        print(f"avar base: {error}", file=sys.stderr)
        return 2
    print(
        f"{args.out}: {args.model} with images of {limits.least} to {limits.most} pixels, at most "
        f"{limits.most_tokens} image tokens each"
    )
    if args.system_prompt is not None:
        template = args.out / TEMPLATE
        own = template.is_file() and not template.is_symlink()
        says = f"says {args.system_prompt!r}" if own else f"writes one by itself, as {args.model}'s does"
        print(f"{args.out}: where a conversation has no system turn, its chat template {says}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
