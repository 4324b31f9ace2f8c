"""Images are processed once per prompt of a rollout, and nothing else of the rollout changes."""

import copy
import inspect
import io
import itertools
import pickle
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from avar_rl.verl_plugin.config import environment
from benchmarks.rolled_images import AgentLoopRun, Rolled, as_verl_ships_it, configuration, png, write_rows_of

environment.prepare("cpu")  # before anything imports verl

IN_BF16 = [f"actor_rollout_ref.{role}.fsdp_config.mixed_precision.param_dtype=bf16" for role in ("actor", "ref")]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """rl.parquet with images that verl's own resizing leaves as they are."""
    folder = tmp_path_factory.mktemp("images")
    write_rows_of(folder, [png(84, 84), png(196, 168), png(84, 84)])
    return folder / "rl.parquet"


@pytest.fixture
def calls(monkeypatch):
    """Counts the runs of the image processor, by the sizes of the images."""
    from transformers import Qwen2VLImageProcessor

    stock, counted = Qwen2VLImageProcessor.preprocess, Counter()

    def preprocess(self, images, **kwargs):
        counted[tuple(image.size for image in images)] += 1
        return stock(self, images, **kwargs)

    monkeypatch.setattr(Qwen2VLImageProcessor, "preprocess", preprocess)
    return counted


def tensors(output) -> dict[str, Tensor]:
    """Every tensor of one response as verl's worker hands it over."""
    made = {name: value for name, value in vars(output).items() if isinstance(value, Tensor)}
    assert {"input_ids", "position_ids"} <= made.keys() and "pixel_values" in output.multi_modal_inputs
    return made | output.multi_modal_inputs


def assert_same(one, other) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]), name


def assert_same_outputs(one: Rolled, other: Rolled) -> None:
    pairs = zip(itertools.chain(*one.outputs), itertools.chain(*other.outputs), strict=True)
    for first, second in pairs:
        assert_same(tensors(first), tensors(second))


def test_a_prompts_images_are_processed_once_and_nothing_else_changes(tiny_world, images, calls):
    with as_verl_ships_it():
        stock = AgentLoopRun(tiny_world / "base", images).run(responses=4)
    # for the tokens, for the reward's batch and for the actor's inputs, of each response; two rows have the same image
    assert calls == {((84, 84),): 2 * 3 * 4, ((196, 168),): 3 * 4}
    calls.clear()
    shared = AgentLoopRun(tiny_world / "base", images).run(responses=4)
    assert calls == {((84, 84),): 1, ((196, 168),): 1}
    assert_same_outputs(stock, shared)
    assert [request["prompt_ids"] for request in stock.asked] == [request["prompt_ids"] for request in shared.asked]
    first, second, *_ = shared.outputs[0]
    assert first.multi_modal_inputs["pixel_values"] is second.multi_modal_inputs["pixel_values"]


def test_without_a_cache_the_outputs_are_the_same(tiny_world, images, calls):
    kept = AgentLoopRun(tiny_world / "base", images).run(responses=2)
    calls.clear()
    none = AgentLoopRun(tiny_world / "base", images, "avar.images.cache_mb=0").run(responses=2)
    assert calls[((196, 168),)] > 1
    assert_same_outputs(kept, none)


def test_pixels_travel_in_the_precision_of_the_actor(tiny_world, images):
    exact = AgentLoopRun(tiny_world / "base", images).run().outputs
    half = AgentLoopRun(tiny_world / "base", images, *IN_BF16).run().outputs
    for (one,), (other,) in zip(exact, half, strict=True):
        expected = tensors(one)
        assert expected["pixel_values"].dtype == torch.float32
        expected["pixel_values"] = expected["pixel_values"].bfloat16()
        assert_same(expected, tensors(other))


@pytest.mark.parametrize(
    ("overrides", "dtype"),
    [([], torch.float32), (IN_BF16, torch.bfloat16), (IN_BF16[:1], torch.float32)],
    ids=["float32", "bfloat16", "actor and reference differ"],
)
def test_the_precision_is_read_from_the_configuration(overrides, dtype, tiny_world, images):
    from avar_rl.verl_plugin.compat.image_cache import pixel_dtype

    assert pixel_dtype(configuration("grpo", tiny_world / "base", images, *overrides)) == dtype


def test_verls_own_default_is_bfloat16(tiny_world, images):
    from avar_rl.verl_plugin.compat.image_cache import pixel_dtype

    unset = [f"actor_rollout_ref.{role}.fsdp_config.mixed_precision=null" for role in ("actor", "ref")]
    assert pixel_dtype(configuration("grpo", tiny_world / "base", images, *unset)) == torch.bfloat16


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16], ids=str)
def test_pixels_in_bfloat16_give_the_same_logits_as_in_float32(weights, tiny_world):
    """Under autocast, as verl's engine runs the model, whatever its weights are kept in."""
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_world / "base", dtype=weights).eval()
    image = Image.open(io.BytesIO(png(333, 200)))
    inputs = AutoProcessor.from_pretrained(tiny_world / "base")(
        text=["<|vision_start|><|image_pad|><|vision_end|>how many"], images=[image], return_tensors="pt"
    )
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        exact = model(**inputs).logits
        inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
        half = model(**inputs).logits
        inputs["pixel_values"] = -inputs["pixel_values"]
        other = model(**inputs).logits
    assert torch.equal(exact, half) and not torch.equal(exact, other)


@pytest.fixture
def shared(tiny_world):
    from transformers import AutoImageProcessor

    from avar_rl.verl_plugin.compat.image_cache import SharedImageProcessor

    processor = AutoImageProcessor.from_pretrained(tiny_world / "base")
    return SharedImageProcessor(processor, cache_bytes=1 << 24, dtype=torch.float32)


def test_other_pixels_settings_or_arguments_are_processed_anew(shared, calls):
    image = Image.open(io.BytesIO(png(84, 112))).convert("RGB")
    other = image.copy()
    other.putpixel((83, 111), (1, 2, 3))
    palette = image.quantize(4)
    changed = palette.copy()
    changed.putpalette([255 - value for value in palette.getpalette() or []])
    for picture in (image, other, palette, changed):
        for _ in range(2):
            made = shared(images=[picture], return_tensors="pt")["pixel_values"]
            assert torch.equal(made, shared.__wrapped__(images=[picture], return_tensors="pt")["pixel_values"])
    assert sum(calls.values()) == 4 + 8  # 8 of them are the comparison's
    shared(images=[image], return_tensors="pt", do_rescale=False)
    shared.image_mean = [0.0, 0.0, 0.0]
    assert shared(images=[image], return_tensors="pt")["pixel_values"].min() >= 0
    assert sum(calls.values()) == 4 + 8 + 2
    two = shared(images=[image, other], return_tensors="pt")
    assert torch.equal(two["pixel_values"], torch.cat([shared(images=[i])["pixel_values"] for i in (image, other)]))


def test_it_is_the_image_processor_in_every_other_way(shared):
    from transformers import Qwen2VLImageProcessor

    assert isinstance(shared, Qwen2VLImageProcessor) and type(shared).__name__ != "Qwen2VLImageProcessor"
    assert shared.__class__.__name__ == "Qwen2VLImageProcessor" and shared.merge_size == 2
    assert shared.get_number_of_image_patches(84, 84, {}) == 36
    for copied in (copy.deepcopy(shared), pickle.loads(pickle.dumps(shared))):
        assert type(copied) is Qwen2VLImageProcessor and copied.to_dict() == shared.to_dict()


def cache(limit: int) -> Any:
    from avar_rl.verl_plugin.compat.image_cache import BoundedCache

    return BoundedCache(limit, len)


def test_the_least_recently_used_goes_first_and_the_bound_holds():
    made = []

    def get(key: str, size: int) -> bytes:
        return kept.get(key, lambda: made.append(key) or bytes(size))

    kept = cache(10)
    for key in "aba":
        get(key, 4)
    assert get("c", 4) == bytes(4) and kept.held_bytes == 8  # b goes
    for key in "ac":
        get(key, 4)
    assert made == ["a", "b", "c"]
    get("b", 4)
    assert made == ["a", "b", "c", "b"] and kept.held_bytes == 8  # a goes
    assert len(get("large", 11)) == 11 and kept.held_bytes == 0
    get("c", 4)
    assert made[-2:] == ["large", "c"]


def test_threads_wait_for_one_that_makes_the_value_and_share_its_error():
    kept, started, release, made = cache(100), threading.Event(), threading.Event(), []

    def make() -> bytes:
        made.append(threading.get_ident())
        started.set()
        assert release.wait(30)
        if len(made) == 1:
            raise OSError("broken")
        return b"value"

    with ThreadPoolExecutor(4) as pool:
        for expected in (OSError, b"value"):
            started.clear()
            release.clear()
            first = pool.submit(kept.get, "key", make)
            assert started.wait(30)
            others = [pool.submit(kept.get, "key", make) for _ in range(3)]
            release.set()
            for future in (first, *others):
                if expected is OSError:
                    # a thread that asks after the failure tries again, and succeeds
                    assert isinstance(future.exception(30), OSError) or future.result() == b"value"
                else:
                    assert future.result(30) == b"value"
    assert len(made) == 2


def test_seams_of_verls_agent_loop():
    import verl
    from verl.experimental.agent_loop import agent_loop

    worker = inspect.getsource(agent_loop.AgentLoopWorker)
    assert "self.processor = self.model_config.processor" in worker and "processor=self.processor" in worker
    assert "build_multimodal_processor_inputs(\n            self.processor," in worker
    # all responses to a prompt are sampled by one worker
    queue = (Path(verl.__file__).parent / "trainer/ppo/v1/agent_loop_tq.py").read_text()
    assert "class AgentLoopWorkerTQ(AgentLoopWorker)" in queue and "for i in range(n):" in queue
    stock = inspect.unwrap(agent_loop.AgentLoopBase.process_multi_modal_info)
    assert list(inspect.signature(stock).parameters) == ["self", "messages"]


def test_a_bound_that_is_none_is_refused(tiny_world, images):
    from avar_rl.verl_plugin.config.settings import GRPOSettings, parse

    with pytest.raises(ValueError, match=r"avar\.images\.cache_mb"):
        parse(GRPOSettings, configuration("grpo", tiny_world / "base", images, "avar.images.cache_mb=-1"))
