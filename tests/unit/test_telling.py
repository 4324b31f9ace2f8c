"""What an evaluation says while it runs."""

from avar_rl.evaluation.benchmarks.asking.telling import ResponseProgress, settings_line
from avar_rl.runtime.console import Console

HOW = {
    "samples": 4, "temperature": 0.7, "seed": 1, "max_new_tokens": 8192, "least_pixels": 3136, "most_pixels": 1003520,
    "system_prompt": None,
}  # fmt: skip


def test_settings_by_hand():
    origins = {
        "mmmu": {"prompts": {"name": "official", "hash": "aa"}, "generation": HOW},
        "mmstar": {"prompts": {"name": "official", "hash": "bb"}, "generation": HOW},
    }
    assert settings_line("base", origins) == (
        "base: prompts official aa (mmmu), official bb (mmstar); greedy and 4 samples at temperature 0.7, seed 1; at "
        "most 8,192 new tokens; images of 3,136 to 1,003,520 pixels; the chat template's system turn"
    )
    own = {
        "mmmu": {
            "prompts": {"name": "ours", "hash": "cc"},
            "generation": HOW | {"samples": 0, "system_prompt": "Look."},
        }
    }
    line = settings_line("base", own)
    assert "prompts ours cc; greedy, seed 1;" in line and line.endswith("; system prompt 'Look.'")


def test_progress_is_lines_that_a_recipes_console_shows(capsys):
    with ResponseProgress("base", 12, 4) as progress:
        progress.add(6, 600)
    lines = [line.rpartition("\r")[2] for line in capsys.readouterr().out.split("\n")]
    said = [line for line in lines if line.strip()]
    assert said[0].startswith("base: 4 of 12 responses, ") and said[-1].startswith("base: 10 of 12 responses, ")
    assert "tokens/s" in said[-1] and said[-1].endswith(" left")
    console = Console(1, None)
    assert all(console.shown(line) == line for line in said)
