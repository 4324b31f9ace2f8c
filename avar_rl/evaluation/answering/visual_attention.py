"""VAS of a model on sets of questions: the probe's measurement of their prompts."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from avar_rl.evaluation.answering.questions import Question
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
    """VAS over the questions that have an image, from the prompts alone: it looks at user text, not at responses.

    Args:
        model: a directory or the name of a model on the hub; measured are all its layers and heads.
        processor: the model's processor.
        batch_size: prompts per forward pass; None for as many as memory holds.
        intervention: on while the model is measured.

    Returns:
        The means over these questions; None where no question has an image.
    """
    sets = {"": lambda: questions}
    [(_, found)] = measure_sets(model, sets, processor, batch_size=batch_size, intervention=intervention)
    return found


def measure_sets(
    model: str,
    sets: Mapping[str, Callable[[], Iterable[Question]]],
    processor,
    *,
    batch_size: int | None = None,
    intervention: Intervention = NO_INTERVENTION,
) -> Iterator[tuple[str, VasSummary | None]]:
    """What `measure` gives for each set of questions, by its name, one after another with the model loaded once."""
    import torch

    from avar_rl.attention.roles import Markup
    from avar_rl.probe.measure import load_network
    from avar_rl.probe.measure import measure as measure_heads

    network = None
    for name, questions in sets.items():
        seen = [question.conversation for question in questions() if question.conversation.images]
        if not seen:
            yield name, None
            continue
        network = network or load_network(model)
        with intervene(network, intervention, Markup.from_tokenizer(processor.tokenizer)):
            heads = measure_heads(network, seen, processor, batch_size=batch_size)
        yield name, summarise([average_heads(heads)])
    if network is not None and network.device.type == "cuda":  # leave the memory to the next model's engine
        del network
        torch.cuda.empty_cache()
