"""What recording span masses costs on a GPU, from one run: `python -m benchmarks.gpu` (torch, triton, transformers).

A random-weight language model of Qwen2.5-VL-7B's shape in bfloat16, one sequence, gradient checkpointing, flash-attn
where it is installed, else torch's packed attention; the vision tower is left out, whose cost is the same in all
variants. For each length, with ratios to the same step without masses:
  guided SFT step   forward, loss and backward; queries: a question of 128 tokens
  old log-probs     forward under no_grad; queries: the response, half of the sequence
Beside them the same on eager attention maps, until they run out of memory. Then span mass alone: its time and its
floor, the time that its bytes and its multiplications take at the card's peak.
`--miniature` runs everything in a small shape on whatever device there is, to see that the script works.
"""

from __future__ import annotations

import argparse
import importlib.util
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter

from benchmarks import cases

QWEN_7B = dict(hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, vocab_size=152064)
QWEN_7B |= dict(num_attention_heads=28, num_key_value_heads=4)
MINIATURE = dict(hidden_size=128, intermediate_size=256, num_hidden_layers=2, vocab_size=512)
MINIATURE |= dict(num_attention_heads=4, num_key_value_heads=2)
OPERATIONS = ("masses, known lse", "masses", "gradients")  # of span mass
# Peak of memory in bytes/s and of dense bfloat16 products in FLOP/s, from NVIDIA's data sheets (SXM).
PEAKS = {"H100": (3.35e12, 989e12), "H200": (4.8e12, 989e12), "A100": (2.04e12, 312e12)}


@dataclass(frozen=True)
class ModelShape:
    """Tokens of one sequence: all of them, and those of image, system turn and question."""

    tokens: int
    image: int
    system: int = 32
    question: int = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[4096, 8192, 16384])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--miniature", action="store_true", help="small shape, 512 tokens, two repeats")
    args = parser.parse_args()

    import torch

    if not args.miniature and not torch.cuda.is_available():
        parser.error("no CUDA device; --miniature runs anywhere")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    print(f"torch {torch.__version__}, {name}, medians with quartiles, seconds of wall-clock time")
    lengths, repeats = ([512], 2) if args.miniature else (args.tokens, args.repeats)
    model, attention = make_model(MINIATURE if args.miniature else QWEN_7B, max(lengths), device)
    eager_fits = True
    for tokens in lengths:
        shape = ModelShape(tokens, image=tokens // 4)
        case = make_case(model, attention, shape, device)
        print(case.name, flush=True)
        for step in cases.STEPS:
            timings = measure_step(step, case, repeats, eager_fits)
            eager_fits = "eager" in timings
            for timing in timings.values():
                print(f"  {step:16} {timing}", flush=True)
        for what in OPERATIONS:
            print(
                f"  span mass of a layer, {measure_operation(what, shape, model.config, device, repeats)}", flush=True
            )


def make_model(sizes: dict, tokens: int, device: str):
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from avar_rl.attention import varlen

    torch.manual_seed(0)
    varlen.register()
    attention = "flash_attention_2" if device == "cuda" and importlib.util.find_spec("flash_attn") else varlen.NAME
    config = Qwen2Config(**sizes, max_position_embeddings=tokens, bos_token_id=None, eos_token_id=None)
    with torch.device(device):
        model = Qwen2ForCausalLM._from_config(config, attn_implementation=attention, dtype=torch.bfloat16)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train(), attention


def make_case(model, attention: str, shape: ModelShape, device: str) -> cases.Case:
    """One sequence: system turn, image, question, and a response of half its length."""
    import torch

    from avar_rl.attention.roles import Role, query_positions

    half, begin = shape.tokens // 2, 3 + shape.system
    spans = [(Role.SYSTEM, 3, begin), (Role.IMAGE, begin, begin + shape.image)]
    spans += [(Role.USER, half - shape.question, half), (Role.RESPONSE, half, shape.tokens)]
    roles = cases.roles_of(1, shape.tokens, spans, device)
    ids = torch.randint(0, model.config.vocab_size, (1, shape.tokens), device=device)
    inputs = dict(input_ids=ids, attention_mask=torch.ones_like(ids))
    name = f"1 x {shape.tokens:,} tokens, {attention}; image {shape.image:,}; "
    name += f"queries: {shape.question} guided, {half:,} response"
    positions = query_positions(roles, "user"), query_positions(roles, "response")
    return cases.Case(name, model, inputs, roles, *positions, attention=attention, head_chunk=2048)


@dataclass(frozen=True)
class Timing:
    """A variant of a step: seconds (median), peak memory in bytes; both over the plain step's, times with quartiles."""

    variant: str
    seconds: float
    peak: int
    ratio: float
    quartiles: tuple[float, float]
    memory: float

    def __str__(self) -> str:
        low, high = self.quartiles
        line = f"{self.variant:10} {self.seconds:8.4f} s   peak {self.peak / 2**30:6.2f} GiB"
        ratio = f"   ratio {self.ratio:.3f} ({low:.3f} to {high:.3f})   memory {self.memory:.3f}"
        return line + ratio * (self.variant != "plain")


def measure_step(step: str, case: cases.Case, repeats: int, eager: bool) -> dict[str, Timing]:
    """By variant; without "eager" where that is not wanted, or its attention maps ran out of memory."""
    import torch

    variants = cases.VARIANTS if eager else cases.VARIANTS[:2]
    seconds = {variant: [] for variant in variants}
    peak = dict.fromkeys(variants, 0)
    for repeat in range(repeats + 1):  # the first is a warm-up
        for variant in [v for v in (variants if repeat % 2 else variants[::-1]) if v in seconds]:
            try:
                time, peak[variant] = timed(lambda v=variant: cases.STEPS[step](case, v))
            except torch.OutOfMemoryError:
                if variant != "eager":
                    raise
                del seconds["eager"]
                case.model.zero_grad()
                torch.cuda.empty_cache()
                continue
            if repeat:
                seconds[variant].append(time)
    timings = {}
    for variant, times in seconds.items():
        ratios = [a / b for a, b in zip(times, seconds["plain"], strict=True)]
        low, middle, high = quantiles(ratios, n=4, method="inclusive") if repeats > 1 else ratios * 3
        memory = peak[variant] / max(1, peak["plain"])
        timings[variant] = Timing(variant, median(times), peak[variant], middle, (low, high), memory)
    return timings


def timed(run) -> tuple[float, int]:
    """Seconds, and the peak of allocated device memory in bytes (0 on a CPU)."""
    import torch

    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = perf_counter()
    run()
    if cuda:
        torch.cuda.synchronize()
    return perf_counter() - start, torch.cuda.max_memory_allocated() if cuda else 0


@dataclass(frozen=True)
class Operation:
    """Span mass of one layer: its time, and what it must move and multiply. `floor` is None on an unknown card."""

    what: str
    seconds: float
    moved: int  # bytes
    flops: int
    floor: float | None  # seconds

    def __str__(self) -> str:
        line = f"{self.what:17} {self.seconds * 1e3:8.3f} ms   {self.moved / 1e6:.1f} MB, {self.flops / 1e9:.1f} GFLOP"
        return line if self.floor is None else f"{line}   floor {self.floor * 1e3:.3f} ms"


def measure_operation(what: str, shape: ModelShape, config, device: str, repeats: int) -> Operation:
    """One of `OPERATIONS`. Queries: the response without gradients, the question with."""
    import torch

    from avar_rl.attention.span_mass import Problem, solve

    H, G, T = config.num_attention_heads, config.num_key_value_heads, shape.tokens
    D = config.hidden_size // H
    half, S = T // 2, 2
    query = torch.randn(1, H, T, D, device=device, dtype=torch.bfloat16, requires_grad=what == "gradients")
    key = torch.randn(1, G, T, D, device=device, dtype=torch.bfloat16, requires_grad=what == "gradients")
    spans = torch.zeros(1, S, T, dtype=torch.bool, device=device)
    spans[:, 0, 3 : 3 + shape.system], spans[:, 1, 3 + shape.system : 3 + shape.system + shape.image] = True, True
    first = half - shape.question if what == "gradients" else half
    positions = torch.arange(first, half if what == "gradients" else T, device=device)[None]
    lse = torch.zeros(1, H, T, device=device) if what == "masses, known lse" else None
    problem = Problem.build(spans, positions)  # once for all layers
    masses = solve(problem, query, key, lse=lse)

    def run():
        if what == "gradients":
            torch.autograd.grad(masses.sum(), (query, key), retain_graph=True)
        else:
            solve(problem, query, key, lse=lse)

    run()
    time = median(timed(run)[0] for _ in range(5 * repeats))
    Q = positions.shape[1]
    keys_per_query = shape.system + shape.image if lse is not None else int(positions.float().mean()) + 1
    read = shape.system + shape.image if lse is not None else int(positions.max()) + 1
    products = 3 if what == "gradients" else 1  # scores; and dq, dk
    flops = products * 2 * Q * H * keys_per_query * D
    numbers = Q * H * D + G * read * D + (Q * H * D + G * T * D if what == "gradients" else 0)
    moved = 2 * numbers + 4 * Q * H * (S + 1)
    name = torch.cuda.get_device_name() if device == "cuda" else ""
    peaks = next((peak for card, peak in PEAKS.items() if card in name), None)
    return Operation(what, time, moved, flops, max(moved / peaks[0], flops / peaks[1]) if peaks else None)


if __name__ == "__main__":
    main()
