"""Checkpoints that an earlier start of a stage has left."""

from pathlib import Path

_PREFIX = "global_step_"


def earlier_checkpoints(path: Path) -> list[str]:
    """The checkpoints beside `path`, up to it, oldest first: what verl would know had it saved them in this process.

    Args:
        path: a checkpoint that is resumed from, `…/global_step_N` or, of a part such as the actor, a folder in it.
    """
    step = path if path.name.startswith(_PREFIX) else path.parent
    numbers = [folder.name.removeprefix(_PREFIX) for folder in step.parent.glob(f"{_PREFIX}*")]
    until = int(step.name.removeprefix(_PREFIX))
    earlier = sorted(int(number) for number in numbers if number.isdigit() and int(number) <= until)
    folders = [step.parent / f"{_PREFIX}{number}" / path.relative_to(step) for number in earlier]
    return [str(folder) for folder in folders if folder.is_dir()]


def where_it_resumes(folder: Path) -> str:
    """A sentence about what a stage that keeps its checkpoints in `folder` does when it is started again."""
    tracker = folder / "latest_checkpointed_iteration.txt"
    step = tracker.read_text().strip() if tracker.is_file() else ""
    if not step:
        return f"No checkpoint is in {folder} yet: the same command starts over."
    return f"The same command resumes from step {step} ({folder / (_PREFIX + step)})."
