from pathlib import Path

import pytest

from data_tools.synthesis.__main__ import main
from data_tools.synthesis.inputs.prompts import Prompt, load_prompts
from data_tools.synthesis.inputs.recipe import load_recipe

FOLDER = Path(__file__).parents[2] / "recipes" / "config" / "synthesis"
TINY = FOLDER / "tiny.yaml"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_and_prompts_are_accepted(path, capsys):
    assert load_prompts(load_recipe(path))["reason"].turns({"question": "2 + 2?", "description": "-"})
    assert main([str(path), "--dry-run"]) == 0
    assert "stages:" in capsys.readouterr().out


def test_the_paper_s_models_and_proportions():
    recipe = load_recipe(FOLDER / "qwen7b.yaml")
    assert [recipe.stage(name).model for name in ("describe", "reason", "anchor")] == [
        "gemini-2.5-pro",
        "Qwen/Qwen3-235B-A22B",
        "Qwen/Qwen3-32B",
    ]
    rows = {name: source.rows for name, source in recipe.sources.items()}
    assert rows == {"r1_sharevl": 22200, "geometry3k": 2100, "m3cot": 3200, "algopuzzlevqa": 1800, "solidgeo": 1300}


def test_overrides():
    recipe = load_recipe(TINY, ["stages.reason.samples=7", "budget.tokens=10", "filters.near_duplicate=null"])
    assert recipe.stages.reason.samples == 7 and recipe.budget.tokens == 10 and recipe.filters.near_duplicate is None


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("filters.min_anchor=1", "unknown key filters.min_anchor (did you mean min_anchors?)"),
        ("export.folder=x", "unknown key export.folder; known: per_row, val_share"),
        ("endpoints.offline.key=x", "unknown key endpoints.offline.key (did you mean key_env?)"),
        ("sources.tiny_world.count=3", "unknown key sources.tiny_world.count; known: path, rows"),
        ("stages.reason.ray_engine.gpus=3", "unknown key stages.reason.ray_engine.gpus; known: batch_size, engine"),
        ("stages.describe.endpoint=nowhere", "unknown endpoint 'nowhere'; there are offline"),
        ("stages.review.model=x", "unknown key stages.review; known: anchor, describe, reason"),
        ("stages.reason.samples=two", "stages.reason.samples: Input should be a valid integer.*, not 'two'"),
        ("stages.reason.samples=0", "stages.reason.samples: Input should be greater than or equal to 1, not 0"),
        ("stages.reason.sampling.n=4", "stages.reason.sampling: n is not a sampling setting; leave it out"),
        ("endpoints.offline.base_url=null", "endpoints.offline.base_url: Input should be a valid string, not None"),
        ("export.val_share=2", "export.val_share: Input should be less than or equal to 1, not 2"),
        ("budget.requests=-1", "budget.requests: Input should be greater than or equal to 0, not -1"),
        ("sources.tiny_world=x.parquet", "sources.tiny_world must be a mapping of keys to values, not 'x.parquet'"),
        ("stages.reason.samples=true", "stages.reason.samples: Input should be a number, not True"),
        ("endpoints.offline.timeout_s=0", "endpoints.offline.timeout_s: Input should be greater than 0, not 0"),
        (
            "stages.reason.price.prompt=-1",
            "stages.reason.price.prompt: Input should be greater than or equal to 0, not -1",
        ),
        ("filters", "'filters' is not of the form key=value"),
    ],
)
def test_refused(override, said):
    with pytest.raises(ValueError, match=said.replace("(", r"\(").replace("?)", r"\?\)")):
        load_recipe(TINY, [override])


def test_other_faults(tmp_path, capsys):
    with pytest.raises(ValueError, match="no such recipe"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "half.yaml").write_text("sources: {a: {path: x}}\nendpoints: {}\n")
    with pytest.raises(ValueError, match="missing key stages"):
        load_recipe(tmp_path / "half.yaml")
    (tmp_path / "none.yaml").write_text(TINY.read_text().replace("tiny_world: {path: outputs", "# {"))
    with pytest.raises(ValueError, match="none.yaml: sources must be a mapping of keys to values, not None"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="none.yaml: sources: the recipe names none"):
        load_recipe(tmp_path / "none.yaml", ["sources={}"])
    (tmp_path / "misspelt.yaml").write_text(TINY.read_text().replace("model: tiny-reason", "modle: tiny-reason"))
    with pytest.raises(ValueError, match=r"unknown key stages.reason.modle \(did you mean model\?\)"):
        load_recipe(tmp_path / "misspelt.yaml")
    (tmp_path / "list.yaml").write_text("- sources")
    with pytest.raises(ValueError, match="list.yaml: the recipe must be a mapping of keys to values"):
        load_recipe(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("sources: [")
    assert main([str(tmp_path / "broken.yaml"), "--dry-run"]) == 2
    assert "broken.yaml" in capsys.readouterr().err
    assert main([str(TINY), "--out", str(tmp_path), "sources.tiny_world.path=gone.parquet"]) == 2
    assert "gone.parquet: no such data file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Solve {question} with {descripton}", r"unknown slots \['descripton'\]; reason has question, description"),
        ("Solve {question}", r"missing slots \['description'\]"),
        ("", r"missing slots"),
    ],
)
def test_prompts_are_checked(text, said, tmp_path):
    (tmp_path / "mine.txt").write_text(text)
    with pytest.raises(ValueError, match=said):
        load_prompts(load_recipe(TINY, [f"stages.reason.prompt={tmp_path}/mine.txt"]))
    with pytest.raises(ValueError, match=r"no file other.txt .* which has anchor.txt, describe.txt, reason.txt"):
        load_prompts(load_recipe(TINY, ["stages.reason.prompt=other.txt"]))


def test_slots_are_filled_once_and_braces_of_mathematics_stay():
    prompt = Prompt("Be brief.", r"Q: {question} \frac{1}{2} {x}")
    assert prompt.turns({"question": "{description}?", "description": "secret"}) == [
        ("system", "Be brief."),
        ("user", r"Q: {description}? \frac{1}{2} {x}"),
    ]
