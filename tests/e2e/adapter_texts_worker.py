"""Run by test_lora.py: greedy tokens of the merged model and of the adapter over its base, in transformers and vLLM.

usage: adapter_texts_worker.py FOLDER ROWS OUT   (FOLDER holds sft/, the adapter's base; adapter/; model/, merged)
"""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from avar_rl.runtime.environment import prepare_environment

prepare_environment()

import torch  # noqa: E402
from peft import PeftModel  # noqa: E402
from transformers import AutoModelForImageTextToText  # noqa: E402
from vllm import LLM, SamplingParams  # noqa: E402
from vllm.lora.request import LoRARequest  # noqa: E402

from avar_rl.evaluation.answering.generate import _shut_down, never_sampled, vllm_prompts  # noqa: E402
from avar_rl.evaluation.answering.questions import load_processor, load_questions  # noqa: E402
from avar_rl.evaluation.same_text import _greedy  # noqa: E402

TOKENS = 16


def transformers_tokens(network, questions, processor) -> list[list[int]]:
    with torch.inference_mode():
        return [_greedy(network, question.conversation, processor, TOKENS)[0] for question in questions]


def vllm_tokens(model: Path, adapter: Path | None, questions, processor) -> list[list[int]]:
    served = {} if adapter is None else {"enable_lora": True, "max_lora_rank": 8, "max_loras": 1}
    engine = LLM(
        str(model), max_model_len=256, max_num_batched_tokens=4096, limit_mm_per_prompt={"image": 2, "video": 0},
        dtype="float32", enforce_eager=True, skip_mm_profiling=True, disable_log_stats=True, **served,
    )  # fmt: skip
    greedy = SamplingParams(temperature=0.0, max_tokens=TOKENS, logit_bias=never_sampled(processor))
    request = None if adapter is None else LoRARequest("exported", 1, str(adapter))
    prompts: list[Any] = vllm_prompts(questions, processor)
    outputs = engine.generate(prompts, greedy, lora_request=request, use_tqdm=False)
    _shut_down(engine)
    return [list(output.outputs[0].token_ids) for output in outputs]


def main(folder: Path, rows: Path, out: Path) -> None:
    base, merged, adapter = folder / "sft", folder / "model", folder / "adapter"
    processor = load_processor(str(merged))
    questions = load_questions(rows, processor, 6).questions
    over = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), str(adapter)).eval()
    found: dict[str, dict] = {"transformers": {}, "vLLM": {}}
    for name, context in (("base", over.disable_adapter()), ("adapter", nullcontext())):
        with context:
            found["transformers"][name] = transformers_tokens(over, questions, processor)
    plain = AutoModelForImageTextToText.from_pretrained(merged).eval()
    found["transformers"]["merged"] = transformers_tokens(plain, questions, processor)
    found["vLLM"]["merged"] = vllm_tokens(merged, None, questions, processor)
    found["vLLM"]["adapter"] = vllm_tokens(base, adapter, questions, processor)
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
