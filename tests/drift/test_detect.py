"""The drift gate: it stays quiet without drift, finds what was planted, and says when it cannot tell."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from airflow_mlops.core.decisions import Verdict
from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.drift.detect import detect
from airflow_mlops.drift.policy import DriftPolicy
from airflow_mlops.drift.profile import DriftProfile
from airflow_mlops.drift.report import DriftReport
from airflow_mlops.drift.scan import scan

Make = Callable[[np.random.Generator, int], Any]

CITIES = np.array([f"city-{i:02d}" for i in range(50)])
WEIGHTS = np.arange(1, 51) / np.arange(1, 51).sum()
CLEAN: Mapping[str, Make] = {
    "normal": lambda r, n: r.normal(size=n),
    "far": lambda r, n: 2013 + r.random(n) / 1e4,
    "skewed": lambda r, n: r.lognormal(0, 1.5, n),
    "cauchy": lambda r, n: r.standard_cauchy(n),
    "count": lambda r, n: r.poisson(3, n),
    "zeros": lambda r, n: np.where(r.random(n) < 0.8, 0.0, r.exponential(size=n)),
    "constant": lambda _, n: np.full(n, 7.0),
    "gaps": lambda r, n: pa.array(r.normal(size=n), mask=r.random(n) < 0.1),
    "flag": lambda r, n: r.random(n) < 0.1,
    "city": lambda r, n: pa.array(r.choice(CITIES, n, p=WEIGHTS)),
    "rare": lambda r, n: pa.array([f"k{i}" for i in r.zipf(1.4, n) % 10**6]),
    "id": lambda r, n: pa.array([f"{i:x}" for i in r.integers(0, 2**60, n)]),
}


def profile(columns: Mapping[str, Any], **kwargs: Any) -> DriftProfile:
    """Return the profile of columns in memory."""
    found = {
        name: scan(values if isinstance(values, pa.Array) else pa.array(values)) for name, values in columns.items()
    }
    return DriftProfile(max((c.rows for c in found.values()), default=0), found, **kwargs)


def drawn(seed: int, rows: int, makers: Mapping[str, Make] = CLEAN) -> dict[str, Any]:
    """Draw *rows* of every column."""
    rng = np.random.default_rng(seed)
    return {name: make(rng, rows) for name, make in makers.items()}


def test_windows_without_drift_do_not_alarm() -> None:
    """Of 300 windows of 20 columns without drift, 1,000 rows each, at most 5 % alarm."""
    makers = {f"{name}-{i}": CLEAN[name] for i in range(2) for name in [*CLEAN][:10]}
    reference = profile(drawn(0, 5000, makers))
    reports = [detect(reference, profile(drawn(seed, 1000, makers)), DriftPolicy()) for seed in range(1, 301)]
    assert {report.compared for report in reports} == {20}
    assert sum(report.verdict is Verdict.FAIL for report in reports) <= 15


def test_many_categories_do_not_alarm() -> None:
    """Columns of thousands of categories, or of row ids, do not alarm because each window brings new ones."""
    makers = {name: CLEAN[name] for name in ("rare", "id", "city")}
    reference = profile(drawn(0, 20_000, makers))
    for seed in range(1, 21):
        report = detect(reference, profile(drawn(seed, 8_000, makers)), DriftPolicy())
        assert report.verdict is Verdict.PASS, report.table()
        found = {column.name: column.statistics for column in report.columns}
        assert found["id"]["new_categories"] == pytest.approx(1.0)
        assert max(column["new_categories_corrected"] for column in found.values()) < 0.02


def test_a_million_rows_do_not_make_a_tiny_shift_matter() -> None:
    """A shift of 0.02 standard deviations is significant at a million rows and still no drift."""
    rng = np.random.default_rng(0)
    a, b = profile({"x": rng.normal(size=10**6)}), profile({"x": rng.normal(0.02, 1, size=10**6)})
    report = detect(a, b, DriftPolicy())
    assert report.verdict is Verdict.PASS
    assert report.columns[0].p_values["distribution"] < 1e-10


def _outliers(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    values[:30] = 1e6
    return values


PLANTED: Mapping[str, tuple[str, Make, str]] = {
    "mean": ("normal", lambda r, n: r.normal(0.4, 1, n), "ks"),
    "spread": ("normal", lambda r, n: r.normal(0, 2, n), "wasserstein"),
    "few outliers": ("normal", lambda r, n: _outliers(r.normal(size=n)), "wasserstein"),
    "far from zero": ("far", lambda r, n: 2013 + r.random(n) / 1e4 + 3e-5, "ks"),
    "unit": ("skewed", lambda r, n: 1000 * r.lognormal(0, 1.5, n), "ks"),
    "count": ("count", lambda r, n: r.poisson(4, n), "ks"),
    "moved constant": ("constant", lambda _, n: np.full(n, 7.5), "ks"),
    "missing": ("gaps", lambda r, n: pa.array(r.normal(size=n), mask=r.random(n) < 0.3), "missing"),
    "all null": ("normal", lambda _, n: pa.nulls(n, pa.float64()), "missing"),
    "null type": ("normal", lambda _, n: pa.nulls(n), "missing"),
    "nan": ("normal", lambda r, n: np.where(r.random(n) < 0.2, np.nan, r.normal(size=n)), "missing"),
    "infinite": ("normal", lambda r, n: np.where(r.random(n) < 0.2, np.inf, r.normal(size=n)), "missing"),
    "flag": ("flag", lambda r, n: r.random(n) < 0.25, "total_variation_corrected"),
    "shares": ("city", lambda r, n: pa.array(r.choice(CITIES, n, p=WEIGHTS[::-1])), "total_variation_corrected"),
    "new city": (
        "city",
        lambda r, n: pa.array(np.where(r.random(n) < 0.03, "Atlantis", r.choice(CITIES, n, p=WEIGHTS))),
        "new_categories_corrected",
    ),
    "many keys": (
        "rare",
        lambda r, n: pa.array([f"k{i}" for i in r.zipf(1.9, n) % 10**6]),
        "total_variation_corrected",
    ),
}


@pytest.mark.parametrize("case", PLANTED)
def test_planted_drift_is_found_in_its_column_alone(case: str) -> None:
    """A change that matters fails, names the one column it is in, and says which statistic told."""
    column, make, statistic = PLANTED[case]
    reference = profile(drawn(1, 20_000))
    current = drawn(2, 4_000)
    current[column] = make(np.random.default_rng(3), 4_000)
    report = detect(reference, profile(current), DriftPolicy())
    assert (report.verdict, report.drifted) == (Verdict.FAIL, (column,)), report.table()
    assert statistic in report.columns[0].why
    assert report.columns[0].severity >= 1


def test_new_and_vanished_categories_are_named() -> None:
    """The report says which categories came and which went."""
    reference = profile({"c": ["a"] * 500 + ["b"] * 400 + ["gone"] * 100})
    report = detect(reference, profile({"c": ["a"] * 500 + ["b"] * 400 + ["fresh"] * 100}), DriftPolicy())
    assert (report.columns[0].new, report.columns[0].vanished) == (("fresh",), ("gone",))
    assert report.columns[0].statistics["new_categories"] == pytest.approx(0.1)
    assert report.columns[0].statistics["vanished_categories"] == pytest.approx(0.1)


def test_a_missing_column_fails_by_name() -> None:
    """A window without a column of the reference fails whatever the rows say, and names it."""
    a, b = drawn(1, 1000), drawn(2, 1000)
    del b["normal"]
    report = detect(profile(a), profile(b), DriftPolicy())
    assert (report.verdict, report.missing_columns) == (Verdict.FAIL, ("normal",))
    assert "'normal' is missing" in report.decision.summary()


def test_words_instead_of_numbers_fail_and_wider_numbers_do_not() -> None:
    """A change of kind is a failure of the schema; int for float, or a boolean as 0 and 1, is none."""
    rng = np.random.default_rng(0)
    a = {"n": rng.integers(0, 9, 900), "f": rng.random(900) < 0.5}
    same = {"n": rng.integers(0, 9, 900).astype(np.float32), "f": (rng.random(900) < 0.5).astype(np.int64)}
    assert detect(profile(a), profile(same), DriftPolicy()).verdict is Verdict.PASS
    report = detect(profile(a), profile({**same, "n": [str(i % 9) for i in range(900)]}), DriftPolicy())
    assert report.verdict is Verdict.FAIL
    assert report.schema_changes == ("Column 'n' is categorical (string), in the reference numeric (int64).",)


def test_target_prediction_and_new_columns_do_not_fail_the_schema() -> None:
    """Unlabelled, unscored data lacks target and prediction; a column more is told and no failure."""
    columns = drawn(1, 1000)
    reference = profile({**columns, "late": columns["flag"], "prediction": columns["normal"]}, target="late")
    report = detect(reference, profile({**drawn(2, 1000), "extra": columns["normal"]}), DriftPolicy())
    assert report.verdict is Verdict.PASS
    assert report.schema_changes == ("Column 'extra' is new; the reference does not have it.",)


def test_a_clock_is_no_drift() -> None:
    """Timestamps move on: they are shown and cannot fail, unless they go missing."""
    seconds = pa.timestamp("s")
    a = {"t": pa.array(range(1000), seconds)}
    assert detect(profile(a), profile({"t": pa.array(range(9000, 10_000), seconds)}), DriftPolicy()).drifted == ()
    gone = detect(profile(a), profile({"t": pa.array([None] * 500 + [1] * 500, seconds)}), DriftPolicy())
    assert gone.drifted == ("t",)


def test_too_few_rows_are_inconclusive() -> None:
    """Below the least rows on either side nothing is said, however large the difference."""
    many, few = profile(drawn(1, 1000)), profile(drawn(2, 150) | {"normal": [9.0] * 150})
    for a, b in ((many, few), (few, many)):
        report = detect(a, b, DriftPolicy())
        assert (report.verdict, report.drifted) == (Verdict.INCONCLUSIVE, ())
        assert "150 rows, 200 are needed" in report.decision.summary()
    assert detect(many, few, DriftPolicy(min_rows=100)).drifted == ("normal",)


@pytest.mark.parametrize("empty", ["reference", "current", "both"])
def test_no_rows_are_inconclusive_even_with_no_minimum(empty: str) -> None:
    """An empty side, with or without columns, is INCONCLUSIVE and no error."""
    full, none = profile({"x": [1.0] * 300}), profile({"x": pa.array([], pa.float64())})
    pair = {"reference": (none, full), "current": (full, none), "both": (DriftProfile(0, {}), DriftProfile(0, {}))}
    assert detect(*pair[empty], DriftPolicy(min_rows=0)).verdict is Verdict.INCONCLUSIVE


def test_policies_decide_how_many_columns_it_takes() -> None:
    """One drifted column fails by default; a least number, a share by weight and weight 0 make it milder."""
    a, b = drawn(1, 3000), drawn(2, 3000)
    b["normal"] = b["normal"] + 1
    reference, current = profile(a), profile(b)

    def verdict(**kwargs: Any) -> Verdict:
        report = detect(reference, current, DriftPolicy(**kwargs))
        assert report.drifted == (() if "ignore" in kwargs or "thresholds" in kwargs else ("normal",))
        return report.verdict

    assert verdict() is Verdict.FAIL
    assert verdict(min_drifted_columns=2) is Verdict.PASS
    assert verdict(max_drifted_share=0.2) is Verdict.PASS
    assert verdict(max_drifted_share=0.2, weights={"normal": 10}) is Verdict.FAIL
    assert verdict(weights={"normal": 0}) is Verdict.PASS
    assert verdict(ignore=("normal",)) is Verdict.PASS
    assert verdict(thresholds={"ks": None, "wasserstein": 2.5}) is Verdict.PASS


def test_a_statistic_can_be_switched_on() -> None:
    """A threshold for the stability index makes it decide, though by default it does not."""
    a, b = profile({"x": np.random.default_rng(0).normal(size=9000)}), np.random.default_rng(1).normal(0.08, 1, 9000)
    assert detect(a, profile({"x": b}), DriftPolicy()).verdict is Verdict.PASS
    report = detect(a, profile({"x": b}), DriftPolicy(thresholds={"psi_corrected": 0.003}))
    assert (report.verdict, report.columns[0].why.split()[0]) == (Verdict.FAIL, "psi_corrected")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"thresholds": {"kss": 0.1}}, "did you mean 'ks'"),
        ({"thresholds": {"ks": 0}}, "threshold of 'ks' is 0"),
        ({"q": 1.5}, "q is 1.5"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(kwargs: dict[str, Any], message: str) -> None:
    """Unknown statistics and thresholds that would always or never hold are refused by name."""
    with pytest.raises(InvalidSpecError, match=message):
        DriftPolicy(**kwargs)


def test_the_report_travels_as_json_and_can_be_cut() -> None:
    """The report is plain JSON without NaN, comes back whole, and its short form keeps the most severe columns."""
    a, b = drawn(1, 3000), drawn(2, 3000)
    b["skewed"] = b["skewed"] * 3
    report = detect(profile(a), profile(b), DriftPolicy())
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert DriftReport.from_dict(json.loads(text)) == report
    brief = report.brief(2)
    assert brief["columns"][0]["name"] == "skewed"
    assert (len(brief["columns"]), brief["compared"]) == (2, len(CLEAN))
    assert "skewed" in report.table().splitlines()[3]
