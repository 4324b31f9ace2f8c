"""The probe against eager attention maps: `python -m benchmarks.probe [--tokens 1024] [--repeats 5] [--threads 1]`.

A Qwen2.5-VL of random weights, one image and 96 user tokens per sample; language model 8 layers × 8 heads × 64, vision
tower 8 blocks × 2 heads × 80, one of them with full attention: the tower's share of the work is that in the 7B model
(about a quarter). Qwen's vocabulary of 151,936. Four ways to VAS:
  probe       span masses under SDPA
  usual       `model(**inputs, output_attentions=True)` under eager attention, sums over the maps: how it is done
              without. Nothing asks for logits here, but that call computes them at every token
  eager       the same with `logits_to_keep=1`, as the probe does: attention alone makes the difference
  eager text  the same as `eager`, with eager attention in the language model only
All measure the same samples, take turns, and must agree. Prints samples per second, ratios from this run, and the
peak memory that each way adds to the model (on a CPU, of a process of its own).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

LAYERS, HEADS, HEAD_DIM, QUESTION = 8, 8, 64, 96
IMAGE_PAD, VISION_START, VISION_END = 5, 3, 4
TEXT_ONLY = {"text_config": "eager", "vision_config": "sdpa"}
ATTENTION = {"probe": "sdpa", "usual": "eager", "eager": "eager", "eager text": TEXT_ONLY}
VOCABULARY = 151_936


def make_model():
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
    from transformers.utils import logging

    logging.set_verbosity_error()  # it warns of output_attentions where a part of the model runs under SDPA
    text = dict(
        vocab_size=VOCABULARY,
        hidden_size=HEADS * HEAD_DIM,
        intermediate_size=1536,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
        rope_parameters={"rope_type": "default", "mrope_section": [8, 12, 12], "rope_theta": 1e6},
    )
    vision = dict(
        depth=8,
        hidden_size=160,
        intermediate_size=428,
        num_heads=2,
        out_hidden_size=HEADS * HEAD_DIM,
        window_size=112,
        fullatt_block_indexes=[7],
    )
    ids: dict[str, Any] = dict(image_token_id=IMAGE_PAD, video_token_id=6, vision_start_token_id=VISION_START)
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, vision_end_token_id=VISION_END, **ids)
    return Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation="sdpa").eval()


class Bench:
    """The model, and a batch: 24 tokens of system turn, the image, 96 user tokens."""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch

        from avar_rl.attention.roles import Role, query_positions
        from avar_rl.vas import vas_spans

        torch.manual_seed(0)
        self.model = make_model().to(options.device, getattr(torch, options.dtype))
        B, T, device = options.batch_size, options.tokens, options.device
        side = int((T - QUESTION - 30) ** 0.5)
        last = 25 + side**2
        self.roles_BT = torch.zeros(B, T, dtype=torch.int8, device=device)
        for role, start, stop in (
            (Role.SYSTEM, 3, 24),
            (Role.IMAGE, 25, last),
            (Role.USER, last + 1, last + 1 + QUESTION),
        ):
            self.roles_BT[:, start:stop] = role
        ids = torch.randint(10, VOCABULARY, (B, T), device=device)
        ids[:, 24], ids[:, last] = VISION_START, VISION_END
        ids[self.roles_BT == Role.IMAGE] = IMAGE_PAD
        self.inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": (ids == IMAGE_PAD).long(),
            "pixel_values": torch.randn(B * 4 * side**2, 1176, device=device, dtype=getattr(torch, options.dtype)),
            "image_grid_thw": torch.tensor([[1, 2 * side, 2 * side]] * B, device=device),
        }
        self.positions_BQ = query_positions(self.roles_BT, "all_user")
        self.spans_BST = vas_spans(self.roles_BT)

    def run(self, way: str):
        """VAS of every sample in the batch, measured in one of the ways; on the CPU."""
        import torch

        from avar_rl.vas import visual_attention

        self.model.set_attn_implementation(ATTENTION[way])
        with torch.inference_mode():
            masses = self._probe() if way == "probe" else self._maps({} if way == "usual" else {"logits_to_keep": 1})
            return visual_attention(masses, self.positions_BQ, self.roles_BT).vas_N.cpu()

    def _probe(self):
        from avar_rl.attention.recorder import record_span_mass

        with record_span_mass(self.model, self.spans_BST, query_positions=self.positions_BQ) as record:
            self.model(**self.inputs, use_cache=False, logits_to_keep=1)
        return record.stack()

    def _maps(self, head: dict[str, int]):
        import torch

        output = self.model(**self.inputs, **head, output_attentions=True)
        spans = self.spans_BST.float()
        positions = self.positions_BQ[0]  # the same in every sample
        return torch.stack(
            [torch.einsum("bhqk,bsk->bshq", a[:, :, positions].float(), spans) for a in output.attentions]
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory-of", choices=tuple(ATTENTION), help=argparse.SUPPRESS)
    options = parser.parse_args()

    import torch

    torch.set_num_threads(options.threads)
    bench = Bench(options)
    if options.memory_of:
        print(added_memory(bench, options.memory_of, options.device))
        return
    on_cpu = options.device == "cpu"
    clock = process_time if on_cpu else perf_counter  # what others do on the machine hardly shows in processor time
    print(f"torch {torch.__version__}, {options.device}, {options.dtype}, {options.threads} threads, {clock.__name__}")
    print(f"{options.tokens} tokens, batch {options.batch_size}, medians of {options.repeats}")
    tolerance = 1e-4 if options.dtype == "float32" else 1e-2
    for way in ATTENTION:  # also a warm-up
        torch.testing.assert_close(bench.run("probe"), bench.run(way), rtol=tolerance, atol=0)
    seconds: dict[str, list[float]] = {way: [] for way in ATTENTION}
    for repeat in range(options.repeats):
        for way in ATTENTION if repeat % 2 else reversed(ATTENTION):
            start = clock()
            bench.run(way)
            seconds[way].append(clock() - start)
    for way, spent in seconds.items():
        memory = memory_of_process(way) if on_cpu else added_memory(bench, way, options.device)
        ratio = median(spent) / median(seconds["probe"])
        speed = options.batch_size / median(spent)
        print(f"  {way:10}  {speed:7.3f} samples/s  probe is {ratio:5.2f} x as fast  + {memory:6.0f} MiB", flush=True)


def added_memory(bench: Bench, way: str, device: str) -> float:
    """MiB that the run adds to what the model and its inputs take."""
    import torch

    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        before = resident("VmRSS")
        bench.run(way)
        return resident("VmHWM") - before
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    bench.run(way)
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def resident(what: str) -> float:
    """A line of this process's /proc status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 2**10


def memory_of_process(way: str) -> float:
    command = [sys.executable, "-m", "benchmarks.probe", *sys.argv[1:], "--memory-of", way]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
