"""VAS of a model on a set of questions: prompts through transformers with the span masses recorded."""

from collections.abc import Sequence

from avar_rl.evaluation.questions import Question
from avar_rl.vas import VasSummary


def measure(model: str, questions: Sequence[Question], processor, *, batch_size: int = 16) -> VasSummary | None:
    """VAS over the questions that have an image, from the prompts alone (VAS looks at user text, not at responses).

    Returns None where no question has an image. Layers and heads: all of the language model.
    """
    import torch
    from tqdm import tqdm
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging

    from avar_rl.spans import Markup
    from avar_rl.vas import summarise

    seen = [question for question in questions if question.images]
    if not seen:
        return None
    logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = "auto" if device == "cuda" else torch.float32
    network = AutoModelForImageTextToText.from_pretrained(model, dtype=dtype, attn_implementation="sdpa").to(device)
    markup = Markup.from_tokenizer(processor.tokenizer)
    batches = [seen[start : start + batch_size] for start in range(0, len(seen), batch_size)]
    with torch.inference_mode():
        samples = [_measure_batch(network.eval(), b, processor, markup) for b in tqdm(batches, "VAS", disable=None)]
    summary = summarise(samples)
    if device == "cuda":  # leave the memory to the next model's engine
        del network
        torch.cuda.empty_cache()
    return summary


def _measure_batch(network, questions: Sequence[Question], processor, markup):
    from avar_rl.attention import record_span_mass
    from avar_rl.spans import query_rows, token_roles
    from avar_rl.vas import vas_spans, visual_attention

    inputs = processor(
        text=[question.text(processor) for question in questions],
        images=[picture for question in questions for picture in question.pictures()],
        padding=True,
        return_tensors="pt",
    ).to(network.device)
    valid_BT = inputs["attention_mask"].bool()
    roles_BT = token_roles(inputs["input_ids"], markup, attention_mask=valid_BT)
    rows_BR = query_rows(roles_BT, "all_user")
    spans_BST = vas_spans(roles_BT, valid_BT=valid_BT)
    with record_span_mass(network, spans_BST, rows=rows_BR, valid=valid_BT) as record:
        network(**inputs, use_cache=False, logits_to_keep=1)
    return visual_attention(record.stack(), rows_BR, roles_BT)
