"""The estimates of a recipe as tables on the console."""

from __future__ import annotations

from collections.abc import Sequence

from avar_rl.estimate import GB
from avar_rl.runtime import tables
from avar_rl.verl_plugin.recipe_check.machine import CARD_VARIABLE, Machine
from avar_rl.verl_plugin.recipe_check.needs import Need
from avar_rl.verl_plugin.recipe_check.numbers import StageNumbers


def show(needs: Sequence[Need], stages: Sequence[StageNumbers], here: Machine | None) -> None:
    """Prints a table for every need, with its parts, and one of the tokens of a step."""
    console = tables.console()
    for need in needs:
        table = tables.table(["part", "GB", "rests on"], text=["part", "rests on"], title=need.what)
        for part in need.parts:
            table.add_row(tables.cut(part.name), f"{part.size / GB:.1f}", tables.cut(part.basis))
        table.add_row("in all", f"{need.size / GB:.1f}", tables.cut(_against(need)))
        console.print(table)
    table = tables.table(
        ["stage", "sequences a step", "tokens each, at most", "tokens a step, at most", "a micro-batch"]
    )
    for stage in stages:
        counts = (stage.sequences, stage.longest, stage.sequences * stage.longest, stage.training.tokens)
        table.add_row(stage.name, *(f"{count:,}" for count in counts))
    if stages:
        console.print(table)
    if here is not None and here.card is not None and not here.cards:
        console.print(
            f"No GPU can be asked here: cards of {here.card / GB:.0f} GB are assumed ({CARD_VARIABLE}), and memory and "
            "disk of this machine are not compared."
        )


def _against(need: Need) -> str:
    if need.have is None:
        return "not compared"
    free = f"{need.have / GB:.1f} GB are there"
    return free if need.limit is None else f"{free} now, {need.limit / GB:.1f} GB in all"
