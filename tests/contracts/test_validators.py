"""Our own validators keep the contract."""

from __future__ import annotations

import pytest

from airflow_mlops.testing.validator import ValidatorContract
from airflow_mlops.validation.engines.great_expectations import GreatExpectationsValidator
from airflow_mlops.validation.engines.sql import SqlValidator


class TestGreatExpectations(ValidatorContract):
    """Great Expectations itself."""

    @pytest.fixture
    def validator(self) -> GreatExpectationsValidator:
        """Give it."""
        return GreatExpectationsValidator()


class TestSql(ValidatorContract):
    """DuckDB, with Great Expectations for the rest."""

    @pytest.fixture
    def validator(self) -> SqlValidator:
        """Give it."""
        return SqlValidator()
