"""An image becomes the same tokens and pixels wherever it is read: checks, SFT, rollout, vLLM, evaluation and probe."""

import asyncio
import functools
import inspect
import io
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from avar_rl.base_model import make_base
from avar_rl.verl_plugin.config import environment

environment.prepare("cpu")  # before anything imports verl
ROOT = Path(__file__).parents[2]

# (width, height): strips, over every limit below, under the lower ones, between them, and on the grid of 28 already
SIZES = [
    (1000, 100),
    (100, 1000),
    (5, 5),
    (1, 30),
    (2000, 20),
    (20, 2000),
    (333, 777),
    (1537, 1200),
    (56, 84),
    (57, 83),
]
SIZES += [(4000, 30), (1920, 1080)]
TOKEN = 28 * 28
LIMITS = [(4, 64), (8, 100), (1, 1280)]  # of an image, in tokens


def png(width: int, height: int, mode: str = "RGB") -> bytes:
    """Noise that is smooth over 8 pixels, so that resizing twice is not what resizing once is."""
    draw = np.random.default_rng(width * 10_000 + height)
    small = draw.integers(0, 256, (height // 8 + 1, width // 8 + 1, len(mode)), dtype=np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)
    image.save(file := io.BytesIO(), "PNG")
    return file.getvalue()


class Answers:
    """The server of a rollout: answers three tokens and keeps what it was asked."""

    def __init__(self):
        self.asked: list[dict[str, Any]] = []

    async def generate(self, **request):
        from verl.workers.rollout.replica import TokenOutput

        self.asked.append(request)
        return TokenOutput(token_ids=[45, 46, 47], log_probs=[-1.0] * 3)


def write_world(folder: Path, sizes, mode: str = "RGB") -> None:
    from data_tools.formats.rows import chat_row, rl_row, write_rows

    images = [png(*size, mode) for size in sizes]
    asked = {"question": "How many circles?"}
    answer = "<think>one</think><answer>1</answer>"
    rl = [
        rl_row(id=str(i), source="odd", gold="1", images=(data,), index=i, split="train", **asked)
        for i, data in enumerate(images)
    ]
    write_rows(rl, folder / "rl.parquet")
    chat = [chat_row(id=str(i), response=answer, images=(data,), **asked) for i, data in enumerate(images)]
    write_rows(chat, folder / "chat.parquet")


def settings(stage: str, base: Path, data: Path, *overrides: str):
    from avar_rl.verl_plugin.config import recipe

    place = "model.path" if stage == "sft" else "actor_rollout_ref.model.path"
    given = [f"{place}={base}", f"data.train_files={data}", *overrides]
    return recipe.load(str(ROOT / f"recipes/config/tiny_{stage}"), given, stage=stage)


def roll_out(base: Path, data: Path, responses: int = 1):
    """What verl's agent loop makes of every row: (its server, the outputs of each row)."""
    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
    from verl.utils.dataset.rl_dataset import RLHFDataset

    config = settings("grpo", base, data, "data.max_prompt_length=2000")
    worker = AgentLoopWorker(config, server := Answers())
    rows = RLHFDataset([str(data)], worker.tokenizer, config.data, worker.processor)
    step = {"step": 0, "sample_index": 0, "rollout_n": 0, "validate": False}

    async def run():
        for index in range(len(rows)):
            row = pickle.loads(pickle.dumps(rows[index]))  # as it reaches the worker
            one = {"agent_name": "single_turn_agent", "trace": False, **row}
            yield await asyncio.gather(*(worker._run_agent_loop({}, step, **one) for _ in range(responses)))

    async def collect():
        return [outputs async for outputs in run()]

    return server, asyncio.run(collect())


@pytest.fixture(scope="module")
def odd_images(tmp_path_factory):
    write_world(folder := tmp_path_factory.mktemp("odd"), SIZES)
    return folder


@pytest.fixture(scope="module", params=LIMITS, ids=lambda limits: "{}-{} tokens".format(*limits))
def base(request, tiny_world, tmp_path_factory):
    out = tmp_path_factory.mktemp("limited") / "base"
    least, most = request.param
    make_base(str(tiny_world / "base"), out, least=least * TOKEN, most=most * TOKEN)
    return out


def checked_lengths(base: Path, data: Path) -> list[int]:
    """What `avar validate` counts."""
    from avar_rl.runtime.files import read_parquet
    from data_tools.validate import check_row, load_processor

    processor = load_processor(base)
    found = [check_row(row, processor, lambda gold: None) for row in read_parquet(data)]
    assert [faults for faults, _ in found] == [[]] * len(found)
    return [length for _, length in found if length is not None]


def test_rollout_vllm_evaluation_and_probe_agree_with_the_check(base, odd_images):
    from avar_rl.evaluation.generate import vllm_prompts
    from avar_rl.probe.samples import load_samples
    from data_tools.validate import load_processor

    data, processor = odd_images / "rl.parquet", load_processor(base)
    server, rolled = roll_out(base, data)
    samples = load_samples(data, "user")
    prompts = vllm_prompts([SimpleNamespace(conversation=sample) for sample in samples], processor)
    lengths = checked_lengths(base, data)
    for sample, prompt, (output,), request, length in zip(samples, prompts, rolled, server.asked, lengths, strict=True):
        ids = request["prompt_ids"]
        assert len(ids) == sample.tokens(processor) == length, sample.id
        probed = processor(text=[sample.text(processor)], images=sample.pictures(), return_tensors="pt")
        assert probed["input_ids"][0].tolist() == ids
        # vLLM processes the images that verl hands it, and those of the evaluation
        for text, images in ((prompt["prompt"], request["image_data"]), tuple(prompt.values())):
            images = images["image"] if isinstance(images, dict) else images
            assert vllm_tokens(base, text, images) == ids, sample.id
        made = output.multi_modal_inputs
        assert torch.equal(made["image_grid_thw"], probed["image_grid_thw"])
        assert torch.equal(made["pixel_values"], probed["pixel_values"]), sample.id
        largest = max(image.width * image.height for image in request["image_data"])
        limit, strip = processor.image_processor.size["longest_edge"], max(sample.pictures()[0].size) > 1900
        assert largest <= limit or strip


@functools.cache
def vllm_processor(base: Path):
    from vllm.config import ModelConfig
    from vllm.multimodal import MULTIMODAL_REGISTRY

    return MULTIMODAL_REGISTRY.create_processor(ModelConfig(str(base), dtype="float32", max_model_len=2048))


def vllm_tokens(base: Path, text: str, images: list[Image.Image]) -> list[int]:
    processor = vllm_processor(base)
    items = processor.info.parse_mm_data({"image": images})
    return list(processor(text, mm_items=items, hf_processor_mm_kwargs={})["prompt_token_ids"])


def test_the_sft_data_set_agrees_with_the_check(base, odd_images):
    from avar_rl.verl_plugin.compat.sft_dataset import MixedSFTDataset
    from data_tools.validate import load_processor

    data, processor = odd_images / "chat.parquet", load_processor(base)
    config = settings("sft", base, data, "data.max_length=2048", "data.pad_mode=no_padding").data
    rows = MixedSFTDataset([str(data)], processor.tokenizer, config, processor)
    images = [Image.open(io.BytesIO(png(*size))) for size in SIZES]
    for row, image, length in zip(
        (rows[i] for i in range(len(rows))), images, checked_lengths(base, data), strict=True
    ):
        assert len(row["input_ids"]) == length
        expected = processor.image_processor(images=[image], return_tensors="pt")["pixel_values"]
        assert torch.equal(row["multi_modal_inputs"]["pixel_values"], expected)


def test_verls_filter_of_long_prompts_agrees_with_the_check(base, odd_images):
    from verl.utils.dataset.rl_dataset import RLHFDataset

    from data_tools.validate import load_processor

    data, processor = odd_images / "rl.parquet", load_processor(base)
    lengths = checked_lengths(base, data)
    keep = ["data.filter_overlong_prompts=true", "data.filter_overlong_prompts_workers=null"]
    for limit in sorted(set(lengths))[1::4]:
        config = settings("grpo", base, data, f"data.max_prompt_length={limit}", *keep).data
        kept = RLHFDataset([str(data)], processor.tokenizer, config, processor).dataframe["extra_info"]
        assert [int(extra["id"]) for extra in kept] == [i for i, length in enumerate(lengths) if length <= limit]


def test_verl_itself_resizes_twice(tiny_world, odd_images):
    """Without the project's wrapper some images get other tokens than the processor gives them."""
    from verl.utils.dataset import rl_dataset

    import avar_rl.verl_plugin.register  # noqa: F401
    from data_tools.validate import load_processor

    images = load_processor(tiny_world / "base").image_processor
    stock = inspect.unwrap(rl_dataset.RLHFDataset._process_multi_modal_info.__func__)
    differ = []
    for size in SIZES:
        part = {"type": "image", "image": Image.open(io.BytesIO(png(*size)))}
        messages = [{"role": "user", "content": [part]}]
        (own,), _, _ = rl_dataset.RLHFDataset._process_multi_modal_info(messages, image_patch_size=14, config=None)
        assert own.size == size
        (twice,), _, _ = stock(rl_dataset.RLHFDataset, messages, image_patch_size=14, config=None)
        grids = [images(images=[image], return_tensors="pt")["image_grid_thw"].tolist() for image in (own, twice)]
        differ += [size] * (grids[0] != grids[1])
    # 1000 x 100: 100 / sqrt(100000 / 50176) / 28 = 2.53 tokens high and 25.3 wide; 1008 x 112: 2.67 and 24.01
    assert (1000, 100) in differ and (56, 84) not in differ


def test_transparent_images_are_on_white_everywhere(tiny_world, tmp_path):
    from avar_rl.probe.samples import load_samples
    from data_tools.validate import load_processor

    write_world(tmp_path, [(84, 84)], mode="RGBA")
    _, ((output,),) = roll_out(tiny_world / "base", tmp_path / "rl.parquet")
    (sample,) = load_samples(tmp_path / "rl.parquet", "user")
    processor = load_processor(tiny_world / "base")
    pixels = processor.image_processor(images=sample.pictures(), return_tensors="pt")["pixel_values"]
    assert torch.equal(output.multi_modal_inputs["pixel_values"], pixels)
