"""The grid under every numeric profile: fixed for all data, fine where the data is, and exact to merge.

The cells are prefixes of the 64 bits of a double (IEEE 754), put in numeric order. A column keeps the finest *level*
(number of mantissa bits, 52 down to 0) on which at most :data:`MAX_CELLS` cells are occupied. Grids of different
levels are nested, so a level depends only on the set of values: parts that are merged give the very grid of the whole.
On level 52 every cell is one value and nothing is lost. It must never look at anything but the values: an edge that
depends on data order would break the merge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np  # noqa: TID253 - a leaf that computes; operators import it when they run
import numpy.typing as npt  # noqa: TID253
import pyarrow.compute as pc  # noqa: TID253

from airflow_mlops.drift.arrow import from_integers, to_numpy

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

EXACT = 52
"""The level on which every double has a cell of its own."""

MAX_CELLS = 4096
"""Occupied cells a column keeps. Level 0 has fewer than 4096 cells for finite doubles, so a level always exists."""

_SAMPLE = 1 << 14
_MAGNITUDE = np.int64(0x7FFF_FFFF_FFFF_FFFF)


@dataclass(frozen=True, eq=False)
class Cells:
    """Occupied cells in rising order with their counts.

    :param level: mantissa bits that tell two cells apart
    :param ids: cell numbers, strictly rising
    :param counts: values in each cell, all above 0
    """

    level: int
    ids: Ints
    counts: Ints

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Cells)
            and self.level == other.level
            and np.array_equal(self.ids, other.ids)
            and np.array_equal(self.counts, other.counts)
        )

    __hash__ = None  # type: ignore[assignment]  # arrays inside

    @property
    def total(self) -> int:
        """Number of values counted."""
        return int(self.counts.sum())


def empty() -> Cells:
    """Return the cells of no values: the neutral element of :func:`add`."""
    return Cells(EXACT, np.empty(0, np.int64), np.empty(0, np.int64))


def count(values: Floats, *, at_most: int = EXACT) -> Cells:
    """Count finite *values* on the finest level that fits, or on *at_most* if that is coarser."""
    if not values.size:
        return empty()
    keys = _keys(values)
    level = min(at_most, _finest(np.unique(keys[:: max(1, keys.size // _SAMPLE)]), EXACT))
    ids, counts = _tally(keys >> (EXACT - level))
    return _fit(Cells(level, ids, counts))


def count_known(values: Floats, counts: Ints) -> Cells:
    """Return the cells of distinct rising finite *values* that were counted elsewhere."""
    return _fit(Cells(EXACT, *_join(_keys(values), counts)))


def add(a: Cells, b: Cells) -> Cells:
    """Return the cells of both. Associative, commutative, and equal to counting all values at once."""
    level = min(a.level, b.level)
    a, b = coarsen(a, level), coarsen(b, level)
    ids = np.concatenate([a.ids, b.ids])
    order = np.argsort(ids, kind="stable")
    return _fit(Cells(level, *_join(ids[order], np.concatenate([a.counts, b.counts])[order])))


def coarsen(cells: Cells, level: int) -> Cells:
    """Return the same values on a coarser *level*."""
    if level == cells.level:
        return cells
    return Cells(level, *_join(cells.ids >> (cells.level - level), cells.counts))


def align(a: Cells, b: Cells) -> tuple[int, Ints, Ints, Ints]:
    """Return the common level, the cells that one of them occupies, and both counts on these cells."""
    level = min(a.level, b.level)
    a, b = coarsen(a, level), coarsen(b, level)
    ids = np.union1d(a.ids, b.ids)
    both = np.zeros((2, ids.size), np.int64)
    both[0, np.searchsorted(ids, a.ids)] = a.counts
    both[1, np.searchsorted(ids, b.ids)] = b.counts
    return level, ids, both[0], both[1]


def bounds(ids: Ints, level: int) -> tuple[Floats, Floats]:
    """Return the smallest and the largest double of each cell. None but that of zero itself reaches zero."""
    shift = EXACT - level
    last = (ids << shift) | ((np.int64(1) << shift) - 1)
    return _values(ids << shift), _values(last - (last == -1))  # -1 is the key of -0.0, which counts as 0.0


def _keys(values: Floats) -> Ints:
    """Return integers in the order of *values*; both zeros are one key."""
    bits = (values + 0.0).view(np.int64)
    keys: Ints = bits ^ ((bits >> 63) & _MAGNITUDE)
    return keys


def _values(keys: Ints) -> Floats:
    bits = keys ^ ((keys >> 63) & _MAGNITUDE)
    return bits.view(np.float64)


def _tally(ids: Ints) -> tuple[Ints, Ints]:
    """Count equal *ids*: in a dense table where they are close together, else by hashing."""
    low, high = int(ids.min()), int(ids.max())
    if high - low <= 4 * ids.size + (1 << 16):
        table = np.bincount(ids - low)
        found = np.flatnonzero(table)
        return found + low, table[found]
    if ids.size <= 1 << 12:
        unique, counts = np.unique(ids, return_counts=True)
        return unique, counts
    return _tally_sparse(ids)


def _tally_sparse(ids: Ints) -> tuple[Ints, Ints]:
    found = pc.value_counts(from_integers(ids))
    unique, counts = to_numpy(found.field("values")), to_numpy(found.field("counts"))
    order = np.argsort(unique)
    return unique[order], counts[order]


def _join(ids: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """Add the counts of equal neighbours in rising *ids*."""
    if not ids.size:
        return ids, counts
    starts = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]]))
    return ids[starts], np.add.reduceat(counts, starts)


def _fit(cells: Cells) -> Cells:
    return coarsen(cells, _finest(cells.ids, cells.level))


def _finest(ids: Ints, level: int) -> int:
    """Return the finest level on which the rising, distinct *ids* of *level* occupy at most MAX_CELLS cells.

    Two neighbours share a cell once all bits up to their highest different bit are dropped, so the answer is the
    MAX_CELLS-th largest such bit.
    """
    if ids.size <= MAX_CELLS:
        return level
    differ = (ids[1:] ^ ids[:-1]).view(np.uint64)
    differ &= ~(differ >> np.uint64(1))  # the highest bit survives, so that rounding to double cannot carry
    bits = np.frexp(differ.astype(np.float64))[1]
    return level - int(np.partition(bits, bits.size - MAX_CELLS)[bits.size - MAX_CELLS])
