"""A recipe's stages and their command lines, as `DRY_RUN=plan bash recipes/NAME.sh` prints them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RecipeStage:
    """One stage: its name and the words of its command, `PYTHON -m MODULE …`."""

    name: str
    words: tuple[str, ...]

    @property
    def module(self) -> str:
        """The module that the command runs."""
        return self.words[2] if self.words[1:2] == ("-m",) else ""

    @property
    def arguments(self) -> tuple[str, ...]:
        """The words behind the module."""
        return self.words[3:]

    def option(self, name: str) -> str | None:
        """The word behind an option, the last one where it is given twice; None without it."""
        places = [place for place, word in enumerate(self.arguments[:-1]) if word == name]
        return self.arguments[places[-1] + 1] if places else None


def read_plan(text: str) -> list[RecipeStage]:
    """The stages as recipes/stages.sh writes them, separated by NUL: name, number of words, words, name, …"""
    items = text.split("\0")[:-1]
    stages = []
    while items:
        name, count, *rest = items
        stages.append(RecipeStage(name, tuple(rest[: int(count)])))
        items = rest[int(count) :]
    return stages
