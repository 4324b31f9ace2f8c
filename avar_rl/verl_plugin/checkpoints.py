"""Checkpoints that an earlier start of a stage has left: which one is resumed, and what of the rest is of no use.

A stage's folder holds `global_step_N/`, one for each checkpoint, and the tracker, a file with the step to resume from.
"""

import json
import os
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from avar_rl.runtime.files import write_whole

TRACKER = "latest_checkpointed_iteration.txt"  # verl's name
_PREFIX = "global_step_"
_FULL = 2**26  # bytes that a disk has less of where it is full
# What verl is told to load -> the kind of file that has it, one for each rank.
_KINDS = {"model": "model", "optimizer": "optim", "extra": "extra_state"}


def write_tracker(folder: Path, step: int) -> None:
    """Makes `step` the one to resume from. Whole or not at all: verl's GRPO empties the file before it writes."""
    write_whole(folder / TRACKER, str(step))


def tracked_step(folder: Path) -> int | None:
    """The step that the tracker names; None where it names none, as after a disk that was full."""
    path = folder / TRACKER
    text = path.read_text().strip() if path.is_file() else ""
    return int(text) if text.isdigit() else None


def saved_steps(folder: Path) -> list[int]:
    """The steps that have a folder, complete or not, in order."""
    names = [path.name.removeprefix(_PREFIX) for path in folder.glob(f"{_PREFIX}*") if path.is_dir()]
    return sorted(int(name) for name in names if name.isdigit())


def step_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return folder / f"{_PREFIX}{step}"


def fault(checkpoint: Path, contents: Sequence[str] = tuple(_KINDS)) -> str | None:
    """What makes a checkpoint useless, such as a file of a rank that is missing or cut off; None where it is whole.

    Args:
        checkpoint: `…/global_step_N`.
        contents: what is to be loaded from it (verl's `checkpoint.load_contents`).
    """
    for kind in [_KINDS[name] for name in contents if name in _KINDS]:
        found = {path.name for path in checkpoint.rglob(f"{kind}_world_size_*_rank_*.pt")}
        if not found:
            return f"{checkpoint} has no {kind}_world_size_*.pt"
        for ranks in {int(name.split("_rank_")[0].rpartition("_")[2]) for name in found}:
            wanted = {f"{kind}_world_size_{ranks}_rank_{rank}.pt" for rank in range(ranks)}
            if absent := sorted(wanted - found):
                return f"{checkpoint} has no {absent[0]}"
    if not list(checkpoint.glob("data*.pt")):
        return f"{checkpoint} has no data*.pt, the place in the data"
    return next((f"{path} is cut off or damaged" for path in sorted(checkpoint.rglob("*")) if _is_damaged(path)), None)


def _is_damaged(path: Path) -> bool:
    """Looks at the structure, not at every byte: torch's files are zip archives, whose index is at the end."""
    if path.suffix == ".pt":
        return not zipfile.is_zipfile(path)
    if path.suffix == ".json":
        try:
            json.loads(path.read_text())
        except ValueError:
            return True
    return False


def step_to_resume(folder: Path, contents: Sequence[str] = tuple(_KINDS)) -> tuple[int, list[str]]:
    """The step of the checkpoint that a stage resumes from, 0 for none, after its folder was put in order.

    A tracked checkpoint that is not whole is passed over for the newest other one that is, and the tracker says so from
    then on. What interrupted savings have left is removed.

    Returns: the step, and sentences about what was passed over or removed.
    """
    tracked, steps, said = tracked_step(folder), saved_steps(folder), []
    if not steps:
        return 0, []
    faults = {step: fault(step_folder(folder, step), contents) for step in steps}
    whole = [step for step in steps if faults[step] is None]
    step = tracked if tracked in whole else max((s for s in whole if tracked is None or s < tracked), default=0)
    if step != tracked and (folder / TRACKER).is_file():
        why = f"{folder / TRACKER} names no step" if tracked is None else faults.get(tracked, f"step {tracked} is gone")
        instead = f"the checkpoint of step {step}" if step else "nothing: there is no other checkpoint that is whole"
        said.append(f"{why}; resuming from {instead}")
        if step:
            write_tracker(folder, step)
        else:
            (folder / TRACKER).unlink()
    elif tracked is None:
        step = 0  # nothing was ever saved to the end
    for other in steps:
        if faults[other] is not None and other != tracked:
            shutil.rmtree(step_folder(folder, other))
            said.append(f"removed {step_folder(folder, other)}, which an interrupted saving has left ({faults[other]})")
    return step or 0, said


def remove_remains(folder: Path) -> None:
    """Removes checkpoints of which only the place in the data is left: verl's GRPO gives up the actor's part alone."""
    for step in saved_steps(folder):
        checkpoint = step_folder(folder, step)
        if all(path.is_dir() or path.name.startswith("data") for path in checkpoint.rglob("*")):
            shutil.rmtree(checkpoint)


def check_room(folder: Path, weights: Path | None, kept: int | None) -> None:
    """Checks that one more checkpoint can be written, before anything is started.

    Args:
        weights: the model's directory; a first checkpoint is at least as large as its weights. None: not known.
        kept: checkpoints at a time; the oldest of so many goes before the next one comes.

    Raises:
        ValueError: nothing can be written to the folder, or its disk has too little room.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f"nothing can be written to trainer.default_local_dir={folder} ({error.strerror}): make it writable, free "
            "some space, or choose another one"
        ) from error
    sizes = [_bytes(step_folder(folder, step)) for step in saved_steps(folder)]
    need = max(sizes) if sizes else (_bytes(weights, ".safetensors") if weights else 0)
    free = shutil.disk_usage(folder).free
    if kept and len(sizes) >= kept:
        free += sizes[0]
    if free < need:
        raise ValueError(
            f"a checkpoint takes {need / 1e9:.3g} GB, and trainer.default_local_dir={folder} has room for "
            f"{free / 1e9:.3g} GB: free some space, or choose a larger disk"
        )


def full_disk(folder: Path, error: BaseException) -> str:
    """A sentence about an error that came of a full disk; "" where it did not, as far as one can tell.

    torch and verl raise various errors there, so the room that is left is asked, too.
    """
    if "No space left" in str(error) or (folder.is_dir() and shutil.disk_usage(folder).free < _FULL):
        return (
            f"No space left on device for {folder}: the checkpoint being saved is incomplete, the one before it is "
            "intact. Free some space first."
        )
    return ""


def _bytes(folder: Path, suffix: str = "") -> int:
    return sum(path.stat().st_size for path in folder.rglob(f"*{suffix}") if path.is_file())


def earlier_checkpoints(path: Path) -> list[str]:
    """The checkpoints beside `path`, up to it, oldest first: what verl would know had it saved them in this process.

    Args:
        path: a checkpoint that is resumed from, `…/global_step_N` or, of a part such as the actor, a folder in it.
    """
    step = path if path.name.startswith(_PREFIX) else path.parent
    until = int(step.name.removeprefix(_PREFIX))
    earlier = [number for number in saved_steps(step.parent) if number <= until]
    folders = [step_folder(step.parent, number) / path.relative_to(step) for number in earlier]
    return [str(folder) for folder in folders if folder.is_dir()]


def where_it_resumes(folder: Path) -> str:
    """A sentence about what a stage that keeps its checkpoints in `folder` does when it is started again."""
    step = tracked_step(folder)
    if step is None:
        return f"No checkpoint is in {folder} yet: the same command starts over."
    return f"The same command resumes from step {step} ({step_folder(folder, step)})."
