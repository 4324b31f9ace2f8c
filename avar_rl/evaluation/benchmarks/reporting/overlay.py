"""A model's attention laid over the images of single questions: OUT/NAME/attention/ID.png, which its page then shows.

It is what the Visual Attention Score measures: the attention of the user's text to each piece of the image, a mean over
layers and heads, in the prompt that the model was asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avar_rl.evaluation.benchmarks.asking.records import samples_path
from avar_rl.evaluation.benchmarks.reporting.answered import (
    asked_prompts,
    figures_of,
    overlay_path,
    read_results,
)
from avar_rl.probe.samples import Conversation
from data_tools.formats.sample import read_samples


def write_overlays(out: Path, name: str, ids: Sequence[str]) -> list[Path]:
    """Draws the attention of a model to the first images of some questions; returns the files.

    Raises:
        ValueError: an unknown question, one without an image, prompts that are not there any more, or a model that
            cannot be loaded.
    """
    figures = figures_of(read_results(out), name, out)
    asked = [_asked(out, name, figures, id_) for id_ in ids]
    from avar_rl.attention.roles import Markup
    from avar_rl.evaluation.answering.questions import load_processor
    from avar_rl.intervention import NO_INTERVENTION, Intervention, intervene
    from avar_rl.probe.measure import image_attention, load_network
    from avar_rl.probe.plot import overlay
    from avar_rl.runtime.settings import parse

    origin = next(iter(figures.values()))["origin"]
    model = str(out / name / "model") if (out / name / "model").is_dir() else origin["model"]["path"]
    processor, network = load_processor(model), load_network(model)
    changed = origin["generation"].get("intervention")
    intervention = parse(Intervention, changed, "intervention") if changed else NO_INTERVENTION
    written = []
    with intervene(network, intervention, Markup.from_tokenizer(processor.tokenizer)):
        for question in asked:
            written.append(out / overlay_path(name, question.id))
            overlay(question.pictures()[0], image_attention(network, question, processor), question.id, written[-1])
    return written


def _asked(out: Path, name: str, figures: Mapping[str, Any], id_: str) -> Conversation:
    """The conversation in which a question was asked."""
    benchmark = id_.partition("/")[0]
    samples = read_samples(samples_path(out / name, benchmark)) if benchmark in figures else iter(())
    sample = next((sample for sample in samples if sample.id == id_), None)
    if sample is None:
        raise ValueError(f"--overlay {id_}: no such question of {name}; its page shows the ids, BENCHMARK/PART/NUMBER")
    origin = figures[benchmark]["origin"]
    prompts = asked_prompts(benchmark, origin)
    if prompts is None:
        raise ValueError(f"{id_}: it was asked with prompts {origin['prompts']['name']}, which are not there any more")
    return prompts.conversation(sample, origin["generation"].get("system_prompt"))
