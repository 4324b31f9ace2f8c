"""Do transformers and vLLM say the same? `python -m avar_rl.evaluation.same_text MODEL --data rl.parquet [--limit 8]`.

Greedy tokens of both for each prompt. Where they part, the logits of transformers tell whether it was a tie: two tokens
within `--tie` of each other may fall either way in different arithmetic, everything else is a fault of the model's
files (a lost weight, another chat template, another end-of-text list). Exit status 1 where a difference is no tie.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from avar_rl.probe.samples import Conversation

TIE = {"cpu": 1e-3, "cuda": 0.5}  # in logits: float32, bfloat16


@dataclass(frozen=True)
class Difference:
    """The first token at which the two part; `gap` is how much transformers prefers its own, in logits."""

    id: str
    position: int
    transformers: str
    vllm: str
    gap: float

    def __str__(self) -> str:
        return (
            f"question {self.id}: from token {self.position} on, transformers says {self.transformers!r}, vLLM "
            f"{self.vllm!r} (transformers' logits are {self.gap:.2g} apart)"
        )


def differences(
    model: str, path: Path, limit: int, max_new_tokens: int, intervention: str | None = None
) -> list[Difference]:
    """Where the greedy tokens of transformers and vLLM part, at most one place per question.

    Args:
        path: parquet file of RL rows, of which the first `limit` are asked.
        intervention: on in both, as text that `Intervention.parse` reads; None for none.

    Raises:
        ValueError: data, model or intervention do not fit.
    """
    import torch

    from avar_rl.attention.roles import Markup
    from avar_rl.evaluation.answering.generate import GenerationSettings, generate
    from avar_rl.evaluation.answering.questions import load_processor, load_questions
    from avar_rl.intervention import NO_INTERVENTION, Intervention, intervene
    from avar_rl.probe.measure import load_network

    processor = load_processor(model)
    data = load_questions(path, processor, limit)
    change = Intervention.parse(intervention) if intervention else NO_INTERVENTION
    settings = GenerationSettings(max_new_tokens=max_new_tokens, samples=0, intervention=change)
    drawn = generate(model, data, processor, settings)
    network = load_network(model)
    found = []
    with torch.inference_mode(), intervene(network, change, Markup.from_tokenizer(processor.tokenizer)):
        for question, response in zip(data.questions, drawn, strict=True):
            ours, logits = _greedy(network, question.conversation, processor, max_new_tokens)
            theirs = list(response.greedy.ids)
            if ours != theirs:
                found.append(_difference(question.conversation.id, ours, theirs, logits, processor.tokenizer))
    return found


def _greedy(network, asked: Conversation, processor, max_new_tokens: int):
    """Token ids of transformers' greedy response, and the logits (T, V) they were chosen by."""
    import torch

    from avar_rl.evaluation.answering.generate import never_sampled

    inputs = processor(text=[asked.text(processor)], images=asked.pictures() or None, return_tensors="pt")
    inputs = inputs.to(network.device)
    output = network.generate(
        **inputs,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        repetition_penalty=1.0,  # Qwen's generation_config asks for 1.05, which vLLM does not apply here
        bad_words_ids=[[token] for token in never_sampled(processor)],
        return_dict_in_generate=True,
        output_logits=True,
    )
    ids = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    return ids, torch.cat(output.logits).float()


def _difference(name: str, ours: list[int], theirs: list[int], logits_TV, tokenizer) -> Difference:
    shared = min(len(ours), len(theirs))
    position = next((i for i in range(shared) if ours[i] != theirs[i]), shared)
    gap = float("inf")  # one ended where the other went on without an end-of-text token: no tie
    if position < shared:
        gap = float(logits_TV[position, ours[position]] - logits_TV[position, theirs[position]])
    return Difference(name, position, tokenizer.decode(ours[position:]), tokenizer.decode(theirs[position:]), gap)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model directory or hub name")
    parser.add_argument("--data", type=Path, required=True, help="parquet file of RL rows")
    parser.add_argument("--limit", type=int, default=8, help="compare the first N rows (default 8)")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--tie", type=float, help="logits this close count as equal (default 0.001; 0.5 on a GPU)")
    parser.add_argument("--intervene", help="compare with an intervention on, as in avar_rl.evaluation")
    options = parser.parse_args(argv)
    from avar_rl.runtime.environment import prepare_environment

    prepare_environment()
    import torch

    tie = options.tie if options.tie is not None else TIE["cuda" if torch.cuda.is_available() else "cpu"]
    try:
        found = differences(options.model, options.data, options.limit, options.max_new_tokens, options.intervene)
    except ValueError as error:
        print(f"avar same-text: {error}", file=sys.stderr)
        return 2
    faults = [difference for difference in found if difference.gap > tie]
    for difference in faults:
        print(difference)
    print(
        f"{options.model}: {len(faults)} real differences, {len(found) - len(faults)} ties in {options.limit} prompts"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
