"""Which rows are duplicates, leaks across splits, or contaminated by a benchmark.

Two images are near-duplicates where their hashes (`images.difference_hash`, 512 bits) differ in at most 8 bits and in
at most a quarter of the bits that both have set, which must be at least 8: an almost blank image has too few to say
more than its bytes do. Memory: 64 bytes per image and under 400 per row. A search is a linear scan, about a millisecond
for 100,000 images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_tools.convert.images import Fingerprint

NEAR = 8
MIN_SHARED = 8
HASH_BYTES = 64


class Images:
    """A growing list of fingerprints that can be searched for near-duplicates."""

    def __init__(self) -> None:
        self._words = np.empty((1024, HASH_BYTES // 8), dtype=np.uint64)
        self._count = 0
        self._first: dict[bytes, int] = {}  # digest -> its first place

    def __len__(self) -> int:
        return self._count

    def add(self, fingerprint: Fingerprint) -> None:
        """Appends it to the list."""
        if self._count == len(self._words):
            self._words = np.concatenate([self._words, np.empty_like(self._words)])
        self._words[self._count] = _words(fingerprint)
        self._first.setdefault(fingerprint.digest, self._count)
        self._count += 1

    def holds(self, fingerprint: Fingerprint, before: int) -> bool:
        """Whether it, or a near-duplicate, is among the first `before` entries."""
        if self._first.get(fingerprint.digest, before) < before:
            return True
        return bool(_near(self._words[:before], _words(fingerprint)).any())

    def near(self, fingerprint: Fingerprint) -> list[int]:
        """The places of its near-duplicates in the list, in order."""
        return np.flatnonzero(_near(self._words[: self._count], _words(fingerprint))).tolist()


def _words(fingerprint: Fingerprint) -> np.ndarray:
    return np.frombuffer(fingerprint.hash, dtype=np.uint64)


def _near(table: np.ndarray, words: np.ndarray) -> np.ndarray:
    """For each hash of a table (N, 8), whether it is that of a near-duplicate: bool (N,)."""
    differing = np.bitwise_count(table ^ words).sum(axis=1)
    shared = np.bitwise_count(table & words).sum(axis=1)
    return (shared >= MIN_SHARED) & (differing <= NEAR) & (4 * differing <= shared)


def same_image(a: Fingerprint, b: Fingerprint) -> bool:
    """Whether two images have equal bytes or are near-duplicates."""
    return a.digest == b.digest or bool(_near(_words(a)[None], _words(b))[0])


def read_benchmark(path: str | Path) -> Images:
    """The images of a file with a hexadecimal hash per line (`#` starts a comment), as `data_tools.inspect` writes it.

    Raises:
        ValueError: no such file, a line that is no hash (names it), or none at all.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such list of hashes; `python -m data_tools.inspect FILE --hashes` writes one")
    images = Images()
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        if len(text) != 2 * HASH_BYTES or not set(text.lower()) <= set("0123456789abcdef"):
            raise ValueError(f"{path}, line {number}: no hash of {2 * HASH_BYTES} hexadecimal digits: {text[:40]!r}")
        images.add(Fingerprint(b"", bytes.fromhex(text)))
    if not len(images):
        raise ValueError(f"{path}: the list of hashes is empty")
    return images


class Duplicates:
    """Decides row by row what to leave out. Splits are entered in order, the one to protect most first.

    `shared_images`: keep a row whose image also stands, under another question, in an earlier split.
    """

    def __init__(self, benchmark: Images | None = None, *, shared_images: bool = False) -> None:
        self._benchmark = benchmark
        self._shared_images = shared_images
        self._images = Images()
        self._earlier = 0  # how many of them belong to earlier splits
        self._rows: dict[bytes, list[tuple[Fingerprint, ...]]] = {}

    def next_split(self) -> None:
        """From here on, images that were entered before are those of earlier splits."""
        self._earlier = len(self._images)

    def reason(self, text: str, gold: str, images: Sequence[Fingerprint]) -> str | None:
        """Why a row with this text, gold answer and images is to be left out; None: it is kept, and remembered.

        Rows are duplicates where text, gold and images agree. Within a split an image may meet many questions.
        """
        benchmark = self._benchmark
        if benchmark and any(benchmark.holds(image, len(benchmark)) for image in images):
            return "image of the benchmark list"
        key = hashlib.sha256(f"{text}\0{gold}".encode()).digest()[:16]
        same_text = self._rows.setdefault(key, [])
        for other in same_text:
            if len(other) == len(images) and all(map(same_image, other, images)):
                return "duplicate row"
        if not self._shared_images and any(self._images.holds(image, self._earlier) for image in images):
            return "image of an earlier split"
        same_text.append(tuple(images))
        for image in images:
            self._images.add(image)
        return None
