"""Categories: exact for few, a fair sample for many, mergeable always."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.drift import keys

texts = st.lists(st.text(max_size=6), max_size=40)


def counted(names: list[str]) -> keys.KeyCounts:
    """Count *names* as a part of the data."""
    found = Counter(names)
    return keys.tally(list(found), list(found.values()))


@given(texts, texts)
def test_adding_is_counting_together(a: list[str], b: list[str]) -> None:
    """Few categories are kept exactly, whatever their text, in any split."""
    whole = keys.add(counted(a), counted(b))
    assert whole == counted(a + b)
    assert whole.counts == Counter(a + b)


@pytest.mark.parametrize("distinct", [3000, 5000, 60_000])
def test_many_categories_merge_to_the_whole(distinct: int) -> None:
    """Beyond the bound the same keys are kept whatever the split, each with all its rows, and no row is lost."""
    rng = np.random.default_rng(distinct)
    names = [f"key-{i}" for i in rng.zipf(1.2, 80_000) % distinct]
    whole = counted(names)
    parts = [counted(names[a:b]) for a, b in ((0, 50), (50, 30_000), (30_000, 80_000))]
    assert keys.add(keys.add(parts[0], parts[1]), parts[2]) == whole == keys.add(parts[2], keys.add(parts[1], parts[0]))
    assert len(whole.counts) <= keys.MAX_KEYS
    assert int(keys.bucket_counts(whole).sum()) == len(names)
    truth = Counter(names)
    assert all(truth[name] == rows for name, rows in whole.counts.items())


def test_sampled_keys_are_a_fair_share() -> None:
    """On level k about one key in 2**k is kept, whatever the keys look like."""
    names = [f"{i:07d}" for i in range(100_000)]
    kept = counted(names)
    assert kept.level == 5
    assert abs(len(kept.counts) * 2**kept.level / len(names) - 1) < 0.1
    buckets = keys.bucket_counts(kept)
    assert buckets.min() > 40
    assert buckets.max() < 180


def test_long_keys_stay_apart_and_short() -> None:
    """Long texts that differ at their end only are still two categories, and none bloats the profile."""
    kept = counted(["x" * 5000 + "a", "x" * 5000 + "b", "x" * 5000 + "a"])
    assert sorted(kept.counts.values()) == [1, 2]
    assert max(map(len, kept.counts)) < 140
