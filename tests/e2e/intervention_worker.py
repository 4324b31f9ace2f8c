"""`python tests/e2e/intervention_worker.py MODEL DATA INTERVENTION` prints how far vLLM's log-probabilities are (JSON)
from those of transformers, both with the intervention on; and how far from transformers' without it.

Few tokens a step force chunked prefill; the second round of the same prompts is answered from the prefix cache.
"""

import json
import sys

from avar_rl.runtime.environment import prepare_environment


def main(model: str, path: str, text: str) -> None:
    prepare_environment()
    from vllm import LLM, SamplingParams

    from avar_rl.evaluation.answering.generate import never_sampled, vllm_prompts
    from avar_rl.evaluation.answering.questions import load_processor, load_questions
    from avar_rl.evaluation.answering.vllm_intervention import engine_options, follow_requests
    from avar_rl.intervention import Intervention
    from avar_rl.probe.measure import load_network

    intervention, processor = Intervention.parse(text), load_processor(model)
    questions = load_questions(path, processor, 6).questions
    engine = LLM(
        model,
        dtype="float32",
        max_model_len=128,
        max_num_batched_tokens=72,
        max_num_seqs=4,
        limit_mm_per_prompt={"image": 1, "video": 0},
        skip_mm_profiling=True,
        enable_prefix_caching=True,
        **engine_options(model, intervention),
    )
    follow_requests(engine)
    common = {"temperature": 0.0, "max_tokens": 8, "logprobs": 0, "logit_bias": never_sampled(processor)}
    prompts = vllm_prompts(questions, processor)
    rounds = [
        engine.generate(prompts, SamplingParams(**common, **more), use_tqdm=False)
        for more in ({"prompt_logprobs": 0}, {})
    ]
    network = load_network(model)
    found = {"intervened": 0.0, "cached": 0.0, "plain": 0.0, "tokens": 0}
    for question, first, second in zip(questions, *rounds, strict=True):
        intervened, plain = expected(network, question, processor, first.outputs[0].token_ids, intervention)
        mine = prompt_values(first) + output_values(first)
        found["tokens"] += len(mine)
        found["intervened"] = max(found["intervened"], distance(mine, intervened))
        found["plain"] = max(found["plain"], distance(mine, plain))
        assert first.outputs[0].token_ids == second.outputs[0].token_ids
        found["cached"] = max(found["cached"], distance(output_values(second), output_values(first)))
    print(json.dumps(found))


def prompt_values(output) -> list[float]:
    pairs = zip(output.prompt_token_ids[1:], output.prompt_logprobs[1:], strict=True)
    return [entry[token].logprob for token, entry in pairs]


def output_values(output) -> list[float]:
    best = output.outputs[0]
    return [entry[token].logprob for token, entry in zip(best.token_ids, best.logprobs, strict=True)]


def distance(a: list[float], b: list[float]) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def expected(network, question, processor, response, intervention) -> tuple[list[float], list[float]]:
    """Log-probability of every token of prompt and response, with and without the intervention."""
    import torch

    from avar_rl.attention.roles import Markup
    from avar_rl.intervention import NO_INTERVENTION, intervene

    inputs = processor(
        text=[question.conversation.text(processor)], images=question.conversation.pictures(), return_tensors="pt"
    )
    ids = torch.cat([inputs["input_ids"], torch.tensor([list(response)])], 1)
    inputs["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, len(response)))
    inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    values = []
    for change in (intervention, NO_INTERVENTION):
        with torch.inference_mode(), intervene(network, change, Markup.from_tokenizer(processor.tokenizer)):
            logits = network(**inputs).logits[0, :-1]
        values.append(logits.log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0].tolist())
    return values[0], values[1]


if __name__ == "__main__":
    main(*sys.argv[1:])
