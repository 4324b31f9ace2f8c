"""What verl's agent loop makes of a row, for every family: the actor sees what the plain model sees."""

import pytest
import torch

from avar_rl.verl_plugin.config import environment
from benchmarks.rolled_images import AgentLoopRun, png, write_rows_of
from data_tools.miniature.model import MINIATURES, corpus, save

environment.prepare("cpu")  # before anything imports verl


@pytest.mark.parametrize("family", MINIATURES)
def test_the_inputs_of_a_response_give_the_logits_of_the_plain_model(family, tiny_world, tmp_path):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    save(tmp_path / "model", corpus(tiny_world / "data"), 0, family)
    write_rows_of(tmp_path, [png(84, 84), png(200, 100)])
    rolled = AgentLoopRun(tmp_path / "model", tmp_path / "rl.parquet").run()
    network = AutoModelForImageTextToText.from_pretrained(tmp_path / "model").eval()
    token = AutoProcessor.from_pretrained(tmp_path / "model").image_token_id
    for (output,) in rolled.outputs:
        seen = output.attention_mask[0].bool()
        ids, pixels = output.input_ids[:, seen], output.multi_modal_inputs
        images = {name: pixels[name] for name in ("pixel_values", "image_grid_thw")}
        grid = images["image_grid_thw"].prod() // 4
        assert int((ids == token).sum()) == int(grid) > 1  # as many image tokens as the tower gives features
        positions = output.position_ids[..., seen].transpose(0, 1)  # (4, 1, T): text, time, height, width
        assert not torch.equal(positions[2], positions[3])
        with torch.inference_mode():
            plain = network(input_ids=ids, mm_token_type_ids=(ids == token).long(), **images).logits
            given = network(input_ids=ids, position_ids=positions, **images).logits
            flat = network(input_ids=ids, position_ids=positions[:1].expand(4, -1, -1), **images).logits
        torch.testing.assert_close(given, plain, rtol=0, atol=1e-5)
        assert (flat - plain).abs().max() > 1e-3  # and positions matter
