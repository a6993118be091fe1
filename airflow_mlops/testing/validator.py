"""What every validator must do. Subclass :class:`ValidatorContract` in a test and give it a validator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.validation.contract import CheckStatus, ValidationReport, Validator

CHECKS: dict[str, tuple[str, dict[str, Any], CheckStatus, int]] = {
    "not null": ("expect_column_values_to_not_be_null", {"column": "age"}, CheckStatus.FAIL, 1),
    "not null, mostly": ("expect_column_values_to_not_be_null", {"column": "age", "mostly": 0.8}, CheckStatus.PASS, 1),
    "null": ("expect_column_values_to_be_null", {"column": "age", "mostly": 0.2}, CheckStatus.PASS, 4),
    "between": ("expect_column_values_to_be_between", {"column": "age", "max_value": 100}, CheckStatus.FAIL, 1),
    "strictly": (
        "expect_column_values_to_be_between",
        {"column": "age", "min_value": 20, "strict_min": True, "mostly": 0.5},
        CheckStatus.PASS,
        2,
    ),
    "in set": ("expect_column_values_to_be_in_set", {"column": "city", "value_set": ["Ulm"]}, CheckStatus.FAIL, 2),
    "not in set": (
        "expect_column_values_to_not_be_in_set",
        {"column": "city", "value_set": ["X"]},
        CheckStatus.PASS,
        0,
    ),
    "unique": ("expect_column_values_to_be_unique", {"column": "age"}, CheckStatus.FAIL, 2),
    "regex": ("expect_column_values_to_match_regex", {"column": "city", "regex": "^[A-Z]"}, CheckStatus.FAIL, 1),
    "lengths": ("expect_column_value_lengths_to_be_between", {"column": "city", "min_value": 3}, CheckStatus.PASS, 0),
    "compound": (
        "expect_compound_columns_to_be_unique",
        {"column_list": ["age", "city"]},
        CheckStatus.PASS,
        0,
    ),
    "mean": (
        "expect_column_mean_to_be_between",
        {"column": "age", "min_value": 65, "max_value": 66},
        CheckStatus.PASS,
        0,
    ),
    "rows": ("expect_table_row_count_to_be_between", {"min_value": 6}, CheckStatus.FAIL, 0),
    "exists": ("expect_column_to_exist", {"column": "zip"}, CheckStatus.FAIL, 0),
    "columns": ("expect_table_columns_to_match_set", {"column_set": ["city", "age"]}, CheckStatus.PASS, 0),
    "rare": ("expect_column_values_to_be_in_type_list", {"column": "age", "type_list": ["str"]}, CheckStatus.FAIL, 0),
    "condition": (
        "expect_column_values_to_be_between",
        {"column": "age", "max_value": 100, "row_condition": "age < 100", "condition_parser": "pandas"},
        CheckStatus.PASS,
        0,
    ),
}
"""Name -> type, arguments, status and unexpected rows over :meth:`ValidatorContract.data`."""


class ValidatorContract:
    """The promises of :class:`~airflow_mlops.validation.contract.Validator`. Give the fixture ``validator``."""

    @pytest.fixture
    def validator(self) -> Validator:
        """Give the validator."""
        raise NotImplementedError

    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        """Give five rows with a missing age, a wrong one, two alike, and a city in lower case."""
        import pandas as pd

        rows = {"age": [20.0, None, 20.0, 200.0, 22.0], "city": ["Ulm", "Ulm", "Bonn", None, "ulm"]}
        pd.DataFrame(rows).to_parquet(tmp_path / "people.parquet")
        return tmp_path / "people.parquet"

    def test_is_a_validator(self, validator: Validator) -> None:
        """A validator has every verb of the contract."""
        assert isinstance(validator, Validator)

    @pytest.mark.parametrize("case", CHECKS)
    def test_checks_mean_the_same_everywhere(self, validator: Validator, data: Path, case: str) -> None:
        """Every engine gives a check the same status and the same number of unexpected rows."""
        kind, kwargs, status, unexpected = CHECKS[case]
        found = _run(validator, data, (kind, kwargs)).checks[0]
        assert (found.status, found.unexpected) == (status, unexpected), found.message

    def test_a_report_adds_up(self, validator: Validator, data: Path) -> None:
        """A report counts rows and bad rows, keeps the order of the suite and has the status of its worst check."""
        report = _run(validator, data, *(CHECKS[case][:2] for case in ("unique", "not null, mostly", "between")))
        assert [check.status for check in report.checks] == ["fail", "pass", "fail"]
        assert (report.status, report.rows, report.bad_rows) == (CheckStatus.FAIL, 5, 3)
        assert (report.suite, report.engine, report.data) == ("people", validator.name, str(data))
        assert ValidationReport.from_dict(report.to_dict()) == report

    def test_bad_rows_have_numbers_and_reasons(self, validator: Validator, data: Path) -> None:
        """Bad rows are named by number, with every failed critical check they broke, and no others."""
        suite = _suite(CHECKS["unique"][:2], CHECKS["not null, mostly"][:2], CHECKS["regex"][:2])
        suite["expectations"][2]["severity"] = "warning"
        bad = validator.bad_rows(data, suite)
        assert sorted(bad) == [0, 2]
        assert "expect_column_values_to_be_unique" in bad[0]

    def test_rows_are_numbered_over_all_files(self, validator: Validator, tmp_path: Path) -> None:
        """In a folder, rows are numbered on from file to file, sorted by name; other files of DVC are passed over."""
        import pandas as pd

        folder = tmp_path / "parts"
        folder.mkdir()
        pd.DataFrame({"x": [3, -1]}).to_parquet(folder / "b.parquet")
        pd.DataFrame({"x": [-1, 1, 2]}).to_parquet(folder / "a.parquet")
        (folder / ".gitignore").write_text("/x")
        suite = _suite(("expect_column_values_to_be_between", {"column": "x", "min_value": 0}))
        assert sorted(validator.bad_rows(folder, suite)) == [0, 4]

    def test_csv(self, validator: Validator, tmp_path: Path) -> None:
        """A CSV file is data too; an empty field is a missing value."""
        (tmp_path / "x.csv").write_text("age,city\n20,Ulm\n,Bonn\n")
        report = _run(validator, tmp_path / "x.csv", CHECKS["not null"][:2])
        assert (report.checks[0].unexpected, report.rows) == (1, 2)

    def test_a_warning_does_not_fail(self, validator: Validator, data: Path) -> None:
        """A failed check of severity warning gives WARN, and its rows are not bad."""
        suite = _suite(CHECKS["between"][:2])
        suite["expectations"][0]["severity"] = "warning"
        report = validator.check(data, suite)
        assert (report.status, report.checks[0].unexpected, report.bad_rows) == (CheckStatus.WARN, 1, 0)

    def test_a_missing_column_is_an_error(self, validator: Validator, data: Path) -> None:
        """A missing column is neither PASS nor FAIL; the message names it and a close one."""
        found = _run(validator, data, ("expect_column_values_to_not_be_null", {"column": "agee"}))
        assert (found.status, found.checks[0].missing_column) == (CheckStatus.ERROR, "agee")
        assert "did you mean 'age'" in found.checks[0].message

    def test_what_cannot_be_computed_is_an_error(self, validator: Validator, data: Path) -> None:
        """A check that does not suit the column's type is an ERROR, whatever its severity, and shows no value."""
        suite = _suite(("expect_column_values_to_be_between", {"column": "city", "min_value": 1}))
        suite["expectations"][0]["severity"] = "warning"
        found = validator.check(data, suite)
        assert found.status is CheckStatus.ERROR
        assert "Ulm" not in str(found.to_dict())

    def test_no_values_in_a_report(self, validator: Validator, data: Path) -> None:
        """A report holds no value of the data."""
        report = _run(validator, data, CHECKS["regex"][:2], CHECKS["between"][:2])
        assert "ulm" not in str(report.to_dict())
        assert "200" not in str(report.to_dict())

    @pytest.mark.parametrize(
        ("suite", "says"),
        [
            ({"name": "x", "expectations": []}, "has 0 expectations"),
            ({"expectations": [{"type": "expect_column_to_exist"}]}, "plain name"),
            ({"name": "../x", "expectations": []}, "plain name"),
            ({"name": "x", "expectation": []}, "did you mean 'expectations'"),
            ({"name": "x", "expectations": [{"type": "expect_column_to_exit", "kwargs": {}}]}, "to_exist'"),
            ({"name": "x", "expectations": [{"type": "expect_column_to_exist", "kwargs": {"colum": "x"}}]}, "'column'"),
            ({"name": "x", "expectations": [{"kwargs": {}}]}, "has no type"),
            ({"name": "x", "expectations": [{"type": "x", "severity": "fatal"}]}, "'fatal'"),
            ({"name": "x", "plugins": "y", "expectations": []}, "must not load code"),
            ({"name": "x", "expectations": [{"type": "x", "kwargs": {"module_name": "os"}}]}, "must not load code"),
            ({"name": "x", "expectations": [{"type": "x", "kwargs": {"row_condition": "@x"}}]}, "plain values"),
            ({"name": "x", "expectations": [{"type": "x", "kwargs": {"result_format": "BASIC"}}]}, "'result_format'"),
        ],
    )
    def test_suites_that_are_refused(self, validator: Validator, data: Path, suite: dict[str, Any], says: str) -> None:
        """A suite that checks nothing, has a typo or would load code is refused, saying what to change."""
        with pytest.raises(InvalidSpecError, match=says):
            validator.check(data, suite)

    def test_other_files_are_refused(self, validator: Validator, tmp_path: Path) -> None:
        """A pickle is never read."""
        (tmp_path / "x.pkl").write_bytes(b"cos\nsystem\n")
        with pytest.raises(InvalidSpecError, match="parquet"):
            _run(validator, tmp_path / "x.pkl", CHECKS["rows"][:2])


def _suite(*checks: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {"name": "people", "expectations": [{"type": kind, "kwargs": dict(kwargs)} for kind, kwargs in checks]}


def _run(validator: Validator, data: Path, *checks: tuple[str, dict[str, Any]]) -> ValidationReport:
    return validator.check(data, _suite(*checks))
