"""What counts as drift: thresholds of effects, the share of false alarms, and how many columns it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_mlops.core.errors import InvalidSpecError, close_match
from airflow_mlops.core.records import Record

DEFAULT_THRESHOLDS: Mapping[str, float] = {
    "ks": 0.05,
    "wasserstein": 0.1,
    "total_variation_corrected": 0.05,
    "missing": 0.05,
    "new_categories_corrected": 0.01,
}
"""Effects from which on a significant difference matters.

A shift of a normal column by 0.13 standard deviations has ``ks`` 0.05; ``wasserstein`` is in standard deviations of the
reference; the others are shares of rows.
"""

STATISTICS = (
    *DEFAULT_THRESHOLDS,
    "psi",
    "psi_corrected",
    "jensen_shannon",
    "cramers_v",
    "total_variation",
    "new_categories",
    "vanished_categories",
    "out_of_range",
)
"""Statistics that may have a threshold."""


@dataclass(frozen=True)
class DriftPolicy(Record):
    """How :func:`airflow_mlops.drift.detect.detect` decides.

    A column drifted when a statistic reaches its threshold *and* the difference is significant after the correction
    for all the columns looked at. By default one drifted column fails: the thresholds and the correction already keep
    windows without drift from failing.

    :param thresholds: statistic -> effect; joined with :data:`DEFAULT_THRESHOLDS`, ``None`` switches one off
    :param q: false discovery rate of Benjamini and Hochberg
    :param min_rows: rows both sides need, below which the verdict is INCONCLUSIVE
    :param min_drifted_columns: drifted columns from which on it fails
    :param max_drifted_share: weighted share of drifted columns that is still fine, 0 to 1
    :param weights: column -> weight in that share, for example its importance to the model; 1 when absent. A column of
        weight 0 is shown and cannot fail
    :param ignore: columns that are not looked at
    """

    thresholds: Mapping[str, float | None] = field(default_factory=dict)
    q: float = 0.05
    min_rows: int = 200
    min_drifted_columns: int = 1
    max_drifted_share: float = 0.0
    weights: Mapping[str, float] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in self.thresholds.items():
            if name not in STATISTICS:
                hint = f"{close_match(name, STATISTICS)}There are {', '.join(STATISTICS)}."
                raise InvalidSpecError(f"No statistic is called {name!r}: {hint}")
            if value is not None and not float(value) > 0:
                raise InvalidSpecError(f"The threshold of {name!r} is {value!r}. Give a number above 0, or None.")
        if not 0 < self.q < 1:
            raise InvalidSpecError(f"q is {self.q!r}. Give the share of false alarms, above 0 and below 1.")

    def limits(self) -> dict[str, float]:
        """Return statistic -> threshold of those that are switched on."""
        return {k: float(v) for k, v in {**DEFAULT_THRESHOLDS, **self.thresholds}.items() if v is not None}

    def weight(self, column: str) -> float:
        """Return the weight of a column."""
        return float(self.weights.get(column, 1.0))
