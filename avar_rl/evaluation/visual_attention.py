"""VAS of a model on a set of questions: the probe's measurement of their prompts."""

from collections.abc import Sequence

from avar_rl.evaluation.questions import Question
from avar_rl.intervention import NO_INTERVENTION, Intervention, intervene
from avar_rl.vas import VasSummary, average_heads, summarise


def measure(
    model: str,
    questions: Sequence[Question],
    processor,
    *,
    batch_size: int | None = None,
    intervention: Intervention = NO_INTERVENTION,
) -> VasSummary | None:
    """VAS over the questions that have an image, from the prompts alone (VAS looks at user text, not at responses).

    Returns None where no question has an image. Layers and heads: all of the language model. `batch_size` None: as
    many prompts as memory holds.
    """
    import torch

    from avar_rl.attention.roles import Markup
    from avar_rl.probe.measure import load_network
    from avar_rl.probe.measure import measure as measure_heads

    seen = [question.sample for question in questions if question.images]
    if not seen:
        return None
    network = load_network(model)
    with intervene(network, intervention, Markup.from_tokenizer(processor.tokenizer)):
        heads = measure_heads(network, seen, processor, batch_size=batch_size)
    if network.device.type == "cuda":  # leave the memory to the next model's engine
        del network
        torch.cuda.empty_cache()
    return summarise([average_heads(heads)])
