"""The grid: what merging promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from airflow_mlops.drift import grid

finite = st.floats(allow_nan=False, allow_infinity=False)
samples = arrays(np.float64, st.integers(0, 60), elements=finite)


@given(samples, samples)
def test_adding_is_counting_together(a: np.ndarray, b: np.ndarray) -> None:
    """Two parts that are added are the cells of all values at once, whatever the values."""
    assert grid.add(grid.count(a), grid.count(b)) == grid.count(np.concatenate([a, b]))


@pytest.mark.parametrize("limit", [3000, 5000, 20_000, 200_000])
@pytest.mark.parametrize("kind", ["normal", "exponential", "far", "cents", "wild", "sorted"])
def test_parts_of_large_columns_merge_to_the_whole(kind: str, limit: int) -> None:
    """Also where the parts are kept on different levels, any split in any order gives the same cells."""
    rng = np.random.default_rng(limit)
    values = {
        "normal": rng.normal(size=limit),
        "exponential": rng.exponential(1e-3, limit),
        "far": 2013 + rng.random(limit) / 1e3,
        "cents": rng.integers(0, 10**6, limit) / 100,
        "wild": rng.normal(size=limit) * 10.0 ** rng.integers(-300, 300, limit),
        "sorted": np.sort(rng.normal(size=limit)),
    }[kind]
    whole = grid.count(values)
    parts = [grid.count(part) for part in np.split(values, [7, limit // 50, limit // 2])]
    left = grid.add(grid.add(parts[0], parts[1]), grid.add(parts[2], parts[3]))
    right = grid.add(parts[3], grid.add(parts[1], grid.add(parts[2], parts[0])))
    assert left == whole == right
    assert whole.total == limit
    assert whole.ids.size <= grid.MAX_CELLS
    finer = np.unique(grid.count(values).ids if whole.level == grid.EXACT else _ids(values, whole.level + 1))
    assert whole.level == grid.EXACT or finer.size > grid.MAX_CELLS


def _ids(values: np.ndarray, level: int) -> np.ndarray:
    keys = values.view(np.int64) ^ ((values.view(np.int64) >> 63) & np.int64(2**63 - 1))
    return keys >> (52 - level)


@given(samples)
def test_every_value_lies_in_its_cell(values: np.ndarray) -> None:
    """The bounds of the cells hold exactly the counted values, in order, also on a coarse level."""
    for level in (grid.EXACT, 20, 3, 0):
        cells = grid.coarsen(grid.count(values), level)
        low, high = grid.bounds(cells.ids, level)
        assert np.all(low <= high)
        assert np.all(np.diff(low) > 0)
        inside = [int(((values >= a) & (values <= b)).sum()) for a, b in zip(low, high, strict=True)]
        assert inside == cells.counts.tolist()


def test_few_values_are_kept_exactly() -> None:
    """A column with few distinct values loses nothing: each has its own cell, and both zeros are one."""
    cells = grid.count(np.array([0.1, -0.0, 0.0, 0.1, 1e300]))
    assert grid.bounds(cells.ids, cells.level)[0].tolist() == [0.0, 0.1, 1e300]
    assert cells.counts.tolist() == [2, 2, 1]


@settings(max_examples=30)
@given(st.lists(finite, min_size=1, max_size=40))
def test_values_counted_elsewhere_are_the_same_cells(values: list[float]) -> None:
    """Distinct values with counts give the cells that the values one by one give."""
    unique, counts = np.unique(np.array(values), return_counts=True)
    assert grid.count_known(unique, counts) == grid.count(np.array(values))


def test_alignment_fills_what_a_side_lacks_with_zero() -> None:
    """Aligned counts share cells, level and totals."""
    rng = np.random.default_rng(0)
    a, b = grid.count(rng.normal(size=30_000)), grid.count(np.array([1.0, 1.0, 99.0]))
    level, ids, x, y = grid.align(a, b)
    assert level == a.level < b.level
    assert (x.sum(), y.sum()) == (30_000, 3)
    assert ids.size == x.size == y.size
    assert np.count_nonzero(y) == 2


def test_zero_is_in_its_own_cell_alone() -> None:
    """The coarse cell of the smallest negative numbers ends before zero, which a negative zero would equal."""
    values = np.array([0.0, -1e-308])
    cells = grid.coarsen(grid.count(values), 0)
    low, high = grid.bounds(cells.ids, 0)
    assert [int(((values >= a) & (values <= b)).sum()) for a, b in zip(low, high, strict=True)] == [1, 1]
