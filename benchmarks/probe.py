"""The probe against eager attention maps: `python -m benchmarks.probe [--tokens 1024] [--repeats 5] [--threads 1]`.

A text model of 8 layers × 8 heads × 64 (random weights; the roles of its tokens are made up): VAS of 96 user rows. The
eager way is what one writes without the probe: `output_attentions=True`, then sums over the maps. Both measure the same
samples, take turns, and must agree. Prints samples per second and their ratio from this run, and the peak memory that
each way adds to the model (on a CPU, of a process of its own).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from statistics import median
from time import perf_counter, process_time

LAYERS, HEADS, HEAD_DIM, ROWS = 8, 8, 64, 96


class Bench:
    """The model under both attention implementations, and a batch."""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch
        from transformers import Qwen2Config, Qwen2ForCausalLM

        from avar_rl.spans import Role, query_rows
        from avar_rl.vas import vas_spans

        torch.manual_seed(0)
        config = Qwen2Config(
            vocab_size=4096,
            hidden_size=HEADS * HEAD_DIM,
            intermediate_size=1536,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            max_position_embeddings=options.tokens,
            bos_token_id=None,
            eos_token_id=None,
        )
        self.model = Qwen2ForCausalLM._from_config(config, attn_implementation="sdpa").eval()
        self.model.to(options.device, getattr(torch, options.dtype))
        B, T = options.batch_size, options.tokens
        self.ids_BT = torch.randint(0, 4096, (B, T), device=options.device)
        self.roles_BT = torch.zeros(B, T, dtype=torch.int8, device=options.device)
        self.roles_BT[:, 3:24] = Role.SYSTEM
        self.roles_BT[:, 30 : T - ROWS - 20] = Role.IMAGE
        self.roles_BT[:, T - ROWS - 10 : T - 10] = Role.USER
        self.rows_BR = query_rows(self.roles_BT, "all_user")
        self.spans_BST = vas_spans(self.roles_BT)

    def run(self, way: str):
        """VAS per sample, on the CPU."""
        import torch

        from avar_rl.vas import visual_attention

        self.model.set_attn_implementation("eager" if way == "eager" else "sdpa")
        with torch.inference_mode():
            masses = self._maps() if way == "eager" else self._probe()
            return visual_attention(masses, self.rows_BR, self.roles_BT).vas_N.cpu()

    def _probe(self):
        from avar_rl.attention import record_span_mass

        with record_span_mass(self.model, self.spans_BST, rows=self.rows_BR) as record:
            self.model(input_ids=self.ids_BT, use_cache=False, logits_to_keep=1)
        return record.stack()

    def _maps(self):
        import torch

        output = self.model(input_ids=self.ids_BT, use_cache=False, logits_to_keep=1, output_attentions=True)
        spans = self.spans_BST.float()
        rows = self.rows_BR[0]  # the same in every sample
        return torch.stack([torch.einsum("bhrk,bsk->bshr", a[:, :, rows].float(), spans) for a in output.attentions])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory-of", choices=("probe", "eager"), help=argparse.SUPPRESS)
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
    torch.testing.assert_close(
        bench.run("probe"), bench.run("eager"), rtol=1e-2 if options.dtype != "float32" else 1e-4, atol=0
    )
    seconds: dict[str, list[float]] = {"probe": [], "eager": []}
    for repeat in range(options.repeats):
        for way in seconds if repeat % 2 else reversed(seconds):
            start = clock()
            bench.run(way)
            seconds[way].append(clock() - start)
    for way, spent in seconds.items():
        memory = memory_of_process(way) if on_cpu else added_memory(bench, way, options.device)
        print(
            f"  {way}  {options.batch_size / median(spent):7.3f} samples/s  + {memory:6.0f} MiB at the peak", flush=True
        )
    print(f"  probe / eager: {median(seconds['eager']) / median(seconds['probe']):.2f} x the samples per second")


def added_memory(bench: Bench, way: str, device: str) -> float:
    """MiB that the run adds to what the model and its inputs take."""
    import torch

    if device == "cpu":
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        bench.run(way)
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    bench.run(way)
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def memory_of_process(way: str) -> float:
    command = [sys.executable, "-m", "benchmarks.probe", *sys.argv[1:], "--memory-of", way]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
