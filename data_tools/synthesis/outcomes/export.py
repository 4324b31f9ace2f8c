"""The last pass: every row's outcome from the journal, the chat rows of those that are good, and the tallies.

Writes train.parquet and val.parquet (chat rows, `data_tools.formats`) and outcomes.jsonl, a line for every row. They
depend on the sources, the recipe and the journalled responses alone, not on when or in which order calls finished.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from avar_rl.runtime.files import replacing
from data_tools.formats.rows import chat_row, row_writer
from data_tools.synthesis.calls.journal import Journal
from data_tools.synthesis.inputs.recipe import STAGES, Recipe
from data_tools.synthesis.inputs.selection import Row
from data_tools.synthesis.outcomes import filters
from data_tools.synthesis.outcomes.stages import Candidate, Tracer

OUTCOMES = ("exported", "filtered", "failed", "pending")
_ORDER = {name: place for place, name in enumerate(("source", *STAGES))}


@dataclass
class FilteredExample:
    """A rejected text, for the report: its row, what the filter found, and the text's beginning."""

    row: str
    detail: str
    text: str


@dataclass
class Tally:
    """The counts of one pass: rows by source and outcome, candidates by stage and filter."""

    rows: Counter[tuple[str, str]] = field(default_factory=Counter)  # (source, outcome)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)  # (outcome, filter or error) of rows
    reached: Counter[str] = field(default_factory=Counter)  # stage -> rows with a candidate that got so far
    filters: Counter[tuple[str, str]] = field(default_factory=Counter)  # (stage, filter) of candidates
    by_source: Counter[tuple[str, str]] = field(default_factory=Counter)  # (source, filter) of candidates
    candidates: int = 0
    responses: int = 0
    tokens: list[int] = field(default_factory=list)  # of each exported response
    anchors: list[int] = field(default_factory=list)
    examples: dict[str, list[FilteredExample]] = field(default_factory=dict)
    samples: list[dict[str, str]] = field(default_factory=list)  # some exported responses


class Exporter:
    """Judges rows in order and writes what is good. Serves one pass: it remembers the texts that it let through."""

    def __init__(self, recipe: Recipe, journal: Journal, tracer: Tracer):
        self.recipe, self.journal, self.tracer = recipe, journal, tracer
        limits = recipe.filters
        self._seen = filters.Deduplicator(limits.near_duplicate, limits.near_duplicate_keep)
        self.tally = Tally()

    def export(self, rows: Iterable[Row], out: Path, progress: Callable[[], None] = lambda: None) -> Tally:
        """Writes the three files into `out`, each whole or not at all, and returns the counts.

        Args:
            progress: is called after each row.

        Raises:
            OSError: a file cannot be written.
        """
        out.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            writers = {
                name: stack.enter_context(row_writer("chat", out / f"{name}.parquet")) for name in ("train", "val")
            }
            partial = stack.enter_context(replacing(out / "outcomes.jsonl"))
            lines = stack.enter_context(open(partial, "w", encoding="utf-8"))
            for row in rows:
                candidates, pending = self._judge(row)
                good = [candidate for candidate in candidates if candidate.good]
                outcome, reason = self._outcome(good, candidates, pending)
                self._count(row, candidates, outcome, reason)
                writer = writers["val" if self._held_out(row) else "train"]
                for number, candidate in enumerate(good):
                    name = row.name if number == 0 else f"{row.name}#{number}"
                    images, said = row.sample.read_images(row.folder), candidate.response
                    writer.add(chat_row(id=name, question=row.sample.text, response=said, images=images))
                line = {"row": row.name, "outcome": outcome, "reason": reason}
                line["candidates"] = [_ended(candidate) for candidate in candidates]
                lines.write(json.dumps(line, ensure_ascii=False) + "\n")
                progress()
        return self.tally

    def _judge(self, row: Row) -> tuple[list[Candidate], bool]:
        """The row's candidates after the filters that look across samples; and whether calls are still missing."""
        trace = self.tracer.trace(row, self.journal.get)
        candidates, left = [], self.recipe.export.per_row
        for candidate in trace.candidates:
            if candidate.good:
                hit: filters.FilterHit | None = filters.FilterHit("surplus", "not needed")
                if left > 0:
                    name = f"{row.name}#{candidate.sample}"
                    hit = self._seen.reject(name, f"{row.sample.text}\n{filters.thought(candidate.response)}")
                left -= hit is None
                candidate = replace(candidate, rejection=hit)
            candidates.append(candidate)
        return candidates, bool(trace.needed)

    @staticmethod
    def _outcome(good: list[Candidate], candidates: list[Candidate], pending: bool) -> tuple[str, str | None]:
        """Exactly one outcome for a row, and its reason: that of the candidate that got furthest."""
        if pending:
            return "pending", None
        if good:
            return "exported", None
        furthest = max(candidates, key=lambda c: (_ORDER[c.stage], -c.sample))
        return ("filtered", furthest.rejection.filter) if furthest.rejection else ("failed", furthest.failure)

    def _held_out(self, row: Row) -> bool:
        digest = hashlib.sha256(f"{self.recipe.seed}/val/{row.name}".encode()).digest()
        return int.from_bytes(digest[:8]) < self.recipe.export.val_share * 2**64

    def _count(self, row: Row, candidates: list[Candidate], outcome: str, reason: str | None) -> None:
        tally, source = self.tally, row.name.split("/", 1)[0]
        tally.rows[source, outcome] += 1
        if reason:
            tally.reasons[outcome, reason if outcome == "filtered" else _error_kind(reason)] += 1
        reached = max((_ORDER[c.stage] for c in candidates), default=0)
        tally.reached.update(stage for stage in STAGES if _ORDER[stage] <= reached)
        tally.candidates += len(candidates)
        for candidate in candidates:
            if candidate.rejection:
                self._count_hit(row, source, candidate, candidate.rejection)
            elif candidate.good:
                tally.responses += 1
                tally.tokens.append(candidate.tokens)
                tally.anchors.append(candidate.anchors)
                if len(tally.samples) < self.recipe.filters.examples:
                    question = row.sample.text
                    tally.samples.append({"row": row.name, "question": question, "response": candidate.response})

    def _count_hit(self, row: Row, source: str, candidate: Candidate, hit: filters.FilterHit) -> None:
        name = hit.filter
        self.tally.filters[candidate.stage, name] += 1
        self.tally.by_source[source, name] += 1
        kept = self.tally.examples.setdefault(name, [])
        if len(kept) < self.recipe.filters.examples:
            kept.append(FilteredExample(row.name, hit.detail, candidate.response[:1000]))


def _error_kind(error: str) -> str:
    return error.split("(")[0].split(":")[0].strip()[:60]


def _ended(candidate: Candidate) -> dict[str, Any]:
    line: dict[str, Any] = {"sample": candidate.sample, "stage": candidate.stage}
    if candidate.rejection:
        line |= {"filter": candidate.rejection.filter, "detail": candidate.rejection.detail}
    elif candidate.failure:
        line["error"] = candidate.failure
    return line
