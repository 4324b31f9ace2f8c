"""The workers that Ray's actors hold, stage by stage, without Ray itself (tests/e2e/test_synthesis_ray.py has that)."""

import asyncio
import pickle
from pathlib import Path

from data_tools.synthesis.calls.journal import Journal
from data_tools.synthesis.calls.keeper import Keeper
from data_tools.synthesis.inputs.recipe import STAGES, load_recipe
from data_tools.synthesis.inputs.selection import SelectedRows
from data_tools.synthesis.inputs.tokens import token_counter
from data_tools.synthesis.outcomes.export import Exporter
from data_tools.synthesis.outcomes.stages import Tracer
from data_tools.synthesis.running.ray_run import StageWorker, passes
from data_tools.synthesis.running.run import run

RECIPE = Path(__file__).parents[2] / "recipes" / "config" / "synthesis" / "tiny.yaml"
ENGINE = "stages.{}.ray_engine={{replicas: 2}}"


class Handle:
    """Calls a Keeper as an actor's handle does: `handle.method.remote(...)`."""

    def __init__(self, keeper: Keeper):
        self._keeper = keeper

    def __getattr__(self, name: str):
        method = getattr(self._keeper, name)
        return type("Method", (), {"remote": staticmethod(method)})


def test_a_pool_a_stage_gives_what_a_single_process_gives(synthesis_world, offline_teacher, tmp_path):
    url, server = offline_teacher(failing=0.0)
    paths = [f"sources.tiny_world.path={synthesis_world}/source.parquet", "endpoints.offline.timeout_s=60"]
    paths += [f"filters.tokenizer={synthesis_world}/tokenizer", f"endpoints.offline.base_url={url}"]
    recipe = load_recipe(RECIPE, paths)
    tracer, rows = Tracer(recipe, token_counter(recipe.filters.tokenizer)), SelectedRows(recipe)

    async def in_pools(keeper: Keeper) -> list[set[str]]:
        """Each row is seen by one of two workers of each stage; the stages that were asked after each pool."""
        asked = []
        parts = [list(rows)[part::2] for part in (0, 1)]
        for stage in STAGES:
            workers = [StageWorker(recipe, stage, 2, Handle(keeper)) for _ in parts]
            for worker, part in zip(workers, parts, strict=True):
                batch = {"row": [pickle.dumps(row) for row in part]}
                assert [handed_on async for handed_on in worker(batch)] == [batch]
                await worker._worker.__aexit__()
            asked.append(set(keeper.journal.usage()))
        return asked

    exports = []
    for name in ("alone", "pools"):
        keeper = Keeper(tmp_path / name / "journal.sqlite", recipe)
        if name == "alone":
            asyncio.run(run(recipe, tracer, keeper, rows, lambda: None))
        else:
            # text-only rows go on from the reasoner; a pool asks nothing of another stage
            assert asyncio.run(in_pools(keeper)) == [{"describe"}, {"describe", "reason"}, set(STAGES)]
        keeper.journal.close()
        journal = Journal(tmp_path / name / "journal.sqlite")
        Exporter(recipe, journal, tracer).export(rows, tmp_path / name)
        journal.close()
        exports.append([(tmp_path / name / f).read_bytes() for f in ("train.parquet", "val.parquet", "outcomes.jsonl")])
    assert exports[0] == exports[1]
    assert len({key for key, _ in server.log}) * 2 == len(server.log)  # each call once a journal


def test_a_stage_with_an_engine_is_a_pass_of_its_own():
    def grouped(*stages: str) -> list[list[str]]:
        return passes(load_recipe(RECIPE, [ENGINE.format(stage) for stage in stages]))

    assert grouped() == [["describe", "reason", "anchor"]]
    assert grouped("reason") == [["describe"], ["reason"], ["anchor"]]
    assert grouped("reason", "anchor") == [["describe"], ["reason"], ["anchor"]]
    assert grouped("describe") == [["describe"], ["reason", "anchor"]]
