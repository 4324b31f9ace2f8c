"""What an evaluation of benchmarks says while it runs: how far it is, and by what settings its numbers came about."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

EVERY = 60.0  # seconds between lines of progress where there is no terminal
_LINE = "{desc}: {n_fmt} of {total_fmt} responses, {rate_fmt}{postfix}, {elapsed} gone, {remaining} left\n"


class ResponseProgress:
    """A line of responses with rate and estimate: live on a terminal, else one a minute.

    A context. `add` is called with what each step finished.
    """

    def __init__(self, name: str, total: int, there: int):
        from tqdm import tqdm

        how: dict[str, Any] = {"total": total, "initial": there, "desc": name, "smoothing": 0.05}
        if sys.stderr.isatty():
            self._bar = tqdm(**how, unit="response")
        else:  # lines of its own: a bar is one line for ever to a log
            every = {"mininterval": EVERY, "maxinterval": EVERY, "miniters": 1}
            self._bar = tqdm(**how, **every, unit="", bar_format=_LINE, ascii=True, file=sys.stdout)
        self._tokens = 0

    def add(self, responses: int, tokens: int) -> None:
        """Counts `responses` more, which have `tokens` in all."""
        self._tokens += tokens
        rate = self._tokens / max(self._bar.format_dict["elapsed"], 1e-9)
        self._bar.set_postfix_str(f"{rate:,.0f} tokens/s", refresh=False)
        self._bar.update(responses)

    def __enter__(self) -> ResponseProgress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()


def settings_line(name: str, origins: Mapping[str, Mapping[str, Any]]) -> str:
    """The prompts and settings of a model's responses on one line; `origins` by benchmark."""
    if not origins:
        return f"{name}: nothing to show"
    prompts: dict[tuple[str, str], list[str]] = {}
    for benchmark, origin in origins.items():
        prompts.setdefault((origin["prompts"]["name"], origin["prompts"]["hash"]), []).append(benchmark)
    hashes = [f"{known} {hash_}" + f" ({', '.join(of)})" * (len(prompts) > 1) for (known, hash_), of in prompts.items()]
    how = next(iter(origins.values()))["generation"]
    drawn = "greedy"
    if how["samples"]:
        drawn += f" and {how['samples']} samples at temperature {how['temperature']:g}"
    parts = [f"prompts {', '.join(hashes)}"]
    parts += [f"{drawn}, seed {how['seed']}", f"at most {how['max_new_tokens']:,} new tokens"]
    parts.append(f"images of {how['least_pixels']:,} to {how['most_pixels']:,} pixels")
    system = how["system_prompt"]
    parts.append("the chat template's system turn" if system is None else f"system prompt {system!r}")
    return f"{name}: {'; '.join(parts)}"
