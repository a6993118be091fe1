"""The counts under every categorical profile: exact for few keys, a fair and mergeable sample for many.

Each key has a fixed 64-bit hash. A column keeps every key whose hash starts with *level* zero bits, on the smallest
level that leaves at most :data:`MAX_KEYS` of them: level 0 is all keys. So which keys are kept depends only on the set
of keys, and parts that are merged give the very counts of the whole (bottom-k sampling by hash: Cohen and Kaplan,
https://arxiv.org/abs/0802.3448). All rows, also of keys that are not kept, are counted in hash buckets.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np  # noqa: TID253 - a leaf that computes; operators import it when they run
import numpy.typing as npt  # noqa: TID253

from airflow_mlops.drift.grid import Ints

MAX_KEYS = 4096
"""Keys a column keeps by name."""

BUCKETS = 1024
"""Hash buckets that count all rows of a column with more keys."""

MAX_KEY_LENGTH = 120
"""Longer keys are kept as their start and a checksum, so that a profile stays small."""


@dataclass(frozen=True)
class KeyCounts:
    """How often each key occurs.

    :param level: zero bits a kept key's hash starts with; 0 means that every key is kept
    :param counts: kept key -> rows, all above 0
    :param buckets: rows in each of the hash buckets; empty on level 0, where *counts* tell it
    """

    level: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    buckets: tuple[int, ...] = ()

    @property
    def singletons(self) -> int:
        """Number of kept keys that occur once: what Good-Turing needs."""
        return sum(1 for count in self.counts.values() if count == 1)

    @property
    def kept(self) -> int:
        """Rows of the kept keys."""
        return sum(self.counts.values())


def tally(keys: Sequence[str], counts: Sequence[int]) -> KeyCounts:
    """Return the counts of *keys*; a key may occur more than once."""
    joined: dict[str, int] = {}
    for key, rows in zip(map(short, keys), counts, strict=True):
        joined[key] = joined.get(key, 0) + rows
    return _fit(0, joined, ())


def add(a: KeyCounts, b: KeyCounts) -> KeyCounts:
    """Return the counts of both. Associative, commutative, and equal to counting all rows at once."""
    joined = dict(a.counts)
    for key, rows in b.counts.items():
        joined[key] = joined.get(key, 0) + rows
    buckets: tuple[int, ...] = ()
    if a.level or b.level:
        buckets = tuple(int(rows) for rows in bucket_counts(a) + bucket_counts(b))
    return _fit(max(a.level, b.level), joined, buckets)


def coarsen(kept: KeyCounts, level: int) -> dict[str, int]:
    """Return the counts of the keys that are kept on *level*."""
    if level == kept.level:
        return dict(kept.counts)
    chosen = _leading_zeros(hashes(list(kept.counts))) >= level
    return {key: rows for (key, rows), keep in zip(kept.counts.items(), chosen, strict=True) if keep}


def bucket_counts(kept: KeyCounts) -> Ints:
    """Return the rows in each hash bucket."""
    if kept.level:
        return np.array(kept.buckets, np.int64)
    return _bucketed(hashes(list(kept.counts)), np.fromiter(kept.counts.values(), np.int64, len(kept.counts)))


def short(key: str) -> str:
    """Return *key*, or the start and a checksum of a long one."""
    if len(key) <= MAX_KEY_LENGTH:
        return key
    return f"{key[:MAX_KEY_LENGTH]}\N{HORIZONTAL ELLIPSIS}{zlib.crc32(key.encode()):08x}"


def hashes(keys: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Return a 64-bit hash of each key, the same on every machine: CRC-32 spread by the finaliser of SplitMix64."""
    crcs = [zlib.crc32(key.encode("utf-8", "surrogatepass")) for key in keys]
    mixed = np.array(crcs, np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    spread: npt.NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return spread


def _fit(level: int, counts: dict[str, int], buckets: tuple[int, ...]) -> KeyCounts:
    """Keep the keys of the smallest level, from *level* up, that leaves at most MAX_KEYS."""
    names = sorted(counts)
    hashed = hashes(names) if level or len(names) > MAX_KEYS else np.empty(0, np.uint64)
    zeros = _leading_zeros(hashed) if hashed.size else np.zeros(len(names), np.int64)
    if level == 0 and len(names) > MAX_KEYS:
        rows = np.fromiter((counts[name] for name in names), np.int64, len(names))
        buckets = tuple(int(n) for n in _bucketed(hashed, rows))
    while int((zeros >= level).sum()) > MAX_KEYS:
        level += 1
    kept = {name: counts[name] for name, keep in zip(names, zeros >= level, strict=True) if keep}
    return KeyCounts(level, kept, buckets)


def _leading_zeros(hashed: npt.NDArray[np.uint64]) -> Ints:
    """Return the zero bits at the front of the upper 32 bits; 32 where all of them are zero."""
    upper = (hashed >> np.uint64(32)).astype(np.float64)
    return (32 - np.frexp(upper)[1]).astype(np.int64)


def _bucketed(hashed: npt.NDArray[np.uint64], rows: Ints) -> Ints:
    """Add up rows by the low bits of the hash, which the choice of kept keys does not look at."""
    table = np.zeros(BUCKETS, np.int64)
    np.add.at(table, (hashed % np.uint64(BUCKETS)).astype(np.int64), rows)
    return table
