"""The journal of teacher calls: what is finished is on disk (sqlite, WAL, fsync at each commit) before it counts.

Writers hand over results and wait; one thread commits all that have gathered, so that an fsync serves many calls.
Any text comes back as it was, but for two things that sqlite cannot hold: a lone surrogate comes back as U+FFFD, and
what is longer than LONGEST_TEXT is cut there.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from avar_rl.runtime.chat_replies import well_formed

LONGEST_TEXT = 200_000_000  # characters; sqlite holds a billion bytes
SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
  key TEXT PRIMARY KEY, row TEXT, stage TEXT, sample INTEGER, model TEXT, text TEXT, finish TEXT,
  prompt_tokens INTEGER, completion_tokens INTEGER, requests INTEGER, seconds REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failures (
  key TEXT PRIMARY KEY, row TEXT, stage TEXT, sample INTEGER, error TEXT, requests INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS earlier (requests INTEGER);
"""


@dataclass(frozen=True)
class Completion:
    """A finished call. `finish` is the API's reason ("stop", "length", …); `requests` counts its retries too."""

    key: str
    row: str
    stage: str
    sample: int
    model: str
    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    requests: int
    seconds: float


@dataclass(frozen=True)
class Failure:
    """A call that failed for good in this run; the next run tries it again."""

    key: str
    row: str
    stage: str
    sample: int
    error: str
    requests: int


@dataclass(frozen=True)
class Usage:
    """Totals of one stage over all runs of a journal."""

    stage: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    requests: int
    seconds: float


class Journal:
    """The file of finished and failed calls. A lock refuses a second run on its folder.

    Raises:
        ValueError: another run holds the folder, or the file is no journal.
        OSError: the disk is full or cannot be written.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.path.with_suffix(".lock"), "w")  # noqa: SIM115
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{self.path.parent}: another synthesis is running in this folder") from None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._waiting: list[tuple[Completion | Failure, asyncio.Future]] = []
        self._flushing: asyncio.Task | None = None
        try:
            self._write = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
            self._write.execute("PRAGMA journal_mode=WAL")
            self._write.execute("PRAGMA synchronous=FULL")
            self._write.executescript(SCHEMA)
            self._read = sqlite3.connect(self.path, check_same_thread=False)
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self.path}: cannot be opened as a journal ({error})") from error

    def retry_failures(self) -> None:
        """Forgets the failures of earlier runs, but not the requests that they took."""
        with self._transaction():
            self._write.execute("INSERT INTO earlier SELECT coalesce(sum(requests), 0) FROM failures")
            self._write.execute("DELETE FROM failures")

    def get(self, key: str) -> Completion | Failure | None:
        """What is known of a call: its completion, its failure in this run, or nothing. OSError: a damaged file."""
        for table, cls in (("calls", Completion), ("failures", Failure)):
            columns = ", ".join(item.name for item in fields(cls))
            if found := self._rows(f"SELECT {columns} FROM {table} WHERE key = ?", key):
                return cls(*found[0])
        return None

    def _rows(self, query: str, *values: str) -> list[Any]:
        """All rows of a query. A damaged file comes as an OSError, as it does where it is written."""
        try:
            return self._read.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise OSError(f"{self.path}: {error}") from error

    async def record(self, result: Completion | Failure) -> None:
        """Returns when `result` is durable.

        Raises:
            OSError: it cannot be written.
        """
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((result, done))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        await done

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            error = None
            try:
                await loop.run_in_executor(self._writer, self.write, [result for result, _ in batch])
            except Exception as problem:  # noqa: BLE001 (raised by `record`: each that waits must get an answer)
                error = problem
            for _, done in batch:
                if not done.cancelled():
                    done.set_result(None) if error is None else done.set_exception(error)
        self._flushing = None

    def write(self, results: Sequence[Completion | Failure]) -> None:
        """Writes results in one transaction. A call that is finished stays as it is: what was paid first counts."""
        with self._transaction():
            for result in results:
                done = isinstance(result, Completion)
                marks = ", ".join("?" * len(fields(result)))
                insert = "INSERT OR IGNORE INTO calls" if done else "INSERT OR REPLACE INTO failures"
                self._write.execute(f"{insert} VALUES ({marks})", tuple(map(_storable, astuple(result))))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Everything in the block or nothing. sqlite's own words for a full or broken disk come as an OSError."""
        try:
            self._write.execute("BEGIN IMMEDIATE")
            yield
            self._write.execute("COMMIT")
        except sqlite3.Error as error:
            raise OSError(
                f"{self.path}: {error}; nothing that was finished is lost, run again when it is mended"
            ) from error
        finally:
            if self._write.in_transaction:
                self._write.execute("ROLLBACK")

    def usage(self) -> dict[str, Usage]:
        """Totals of the finished calls by stage, their retries included, without requests of failed calls."""
        rows = self._rows(
            "SELECT stage, count(*), sum(prompt_tokens), sum(completion_tokens), sum(requests), sum(seconds)"
            " FROM calls GROUP BY stage"
        )
        return {row[0]: Usage(*row) for row in rows}

    def requests(self) -> int:
        """The number of requests of all runs, less those under way when a run was killed."""
        tables = " UNION ALL ".join(f"SELECT sum(requests) AS n FROM {t}" for t in ("calls", "failures", "earlier"))
        return self._rows(f"SELECT coalesce(sum(n), 0) FROM ({tables})")[0][0]

    def close(self) -> None:
        """Waits for what is being written, closes the file and frees the folder for another run."""
        self._writer.shutdown()
        self._read.close()
        self._write.close()
        self._lock.close()


def _storable(value: Any) -> Any:
    """`value` as sqlite takes it; see the module for texts. Whole numbers keep within 2**53, and can be added up."""
    if isinstance(value, str):
        return well_formed(value[:LONGEST_TEXT])
    return max(-(2**53), min(value, 2**53)) if isinstance(value, int) else value
