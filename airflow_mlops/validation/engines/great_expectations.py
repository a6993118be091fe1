"""Run a suite with Great Expectations itself, in memory.

Its import takes seconds, so it happens in the call and once. It must never send usage data, write a project folder or
hide that a check could not be computed.
See https://docs.greatexpectations.io/docs/core/run_validations/run_a_validation_definition.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.core.extras import extra
from airflow_mlops.validation import rules
from airflow_mlops.validation.engines.suite_validator import SuiteValidator
from airflow_mlops.validation.reading import EXTRA, columns_of, data_files, read_frame
from airflow_mlops.validation.rules import Outcome
from airflow_mlops.validation.suite import Check, Suite, read_suite, unknown_argument, unknown_type

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_OWN_FIELDS = {"id", "meta", "notes", "description", "rendered_content", "severity"}


class GreatExpectationsValidator(SuiteValidator):
    """A :class:`~airflow_mlops.validation.contract.Validator`: pandas frames, checked by Great Expectations."""

    name = "great_expectations"

    def _run(self, data: Path, suite: Mapping[str, Any]) -> tuple[Suite, list[Outcome], int]:
        read = read_suite(suite)
        refuse_unknown(read.checks)
        files = data_files(data)
        columns_of(files)
        frame = read_frame(files)
        return read, run_checks(frame, read.checks), len(frame)


def refuse_unknown(checks: Sequence[Check]) -> None:
    """Refuse the first check or argument that Great Expectations does not have.

    :raises InvalidSpecError: naming it and a close match
    """
    known = _classes()
    for check in checks:
        if check.type not in known:
            raise unknown_type(check.type, known)
        arguments = set(known[check.type].__fields__) - _OWN_FIELDS
        for argument in check.kwargs:
            if argument not in arguments:
                raise unknown_argument(check, argument, arguments)


def run_checks(frame: Any, checks: Sequence[Check]) -> list[Outcome]:
    """Run *checks* over a pandas frame with row numbers from 0."""
    columns = [str(name) for name in frame.columns]
    found = [rules.missing_column(check, columns) for check in checks]
    runnable = {n: check for n, check in enumerate(checks) if found[n] is None}
    ran = _validate(frame, runnable) if runnable else {}
    return [outcome or ran[n] for n, outcome in enumerate(found)]


def _library() -> Any:
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with extra(EXTRA):
        import great_expectations
    return great_expectations


def _classes() -> dict[str, Any]:
    """Return the type of every expectation that Great Expectations ships -> its class."""
    _library()
    from great_expectations.expectations import core
    from great_expectations.expectations.expectation import Expectation

    found: list[Any] = [
        item for item in vars(core).values() if isinstance(item, type) and issubclass(item, Expectation)
    ]
    return {item.expectation_type: item for item in found if item.__module__.startswith("great_expectations.")}


def _validate(frame: Any, checks: Mapping[int, Check]) -> dict[int, Outcome]:
    gx = _library()
    built = [_built(_with_moments(check, frame), number) for number, check in checks.items()]
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    source = context.data_sources.add_pandas("data").add_dataframe_asset("rows")
    batch = source.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    wanted = {"result_format": "COMPLETE", "include_unexpected_rows": False}
    result = batch.validate(gx.ExpectationSuite(name="suite", expectations=built), result_format=wanted)
    return {item.expectation_config.meta["number"]: _outcome(item) for item in result.results}


def _built(check: Check, number: int) -> Any:
    """Return the expectation, marked with its number in the suite: results come back in another order."""
    from pydantic.v1 import ValidationError

    try:
        return _classes()[check.type](**check.kwargs, severity=check.severity, meta={"number": number})
    except (ValidationError, ValueError, TypeError) as error:
        said = " ".join(str(error).split())[:300]
        raise InvalidSpecError(f"{check.type!r} does not take {dict(check.kwargs)!r}: {said}.") from error


def _with_moments(check: Check, frame: Any) -> Check:
    """Give bounds of a column of moments the midnight a plain date means; a date cannot be compared with a moment."""
    column = check.kwargs.get("column")
    if column not in frame.columns or getattr(frame[column].dtype, "kind", "O") != "M":
        return check
    bounds = {key: check.kwargs[key] for key in ("min_value", "max_value") if key in check.kwargs}
    moments = {key: f"{value}T00:00:00" for key, value in bounds.items() if _DATE.fullmatch(str(value))}
    return replace(check, kwargs={**check.kwargs, **moments})


def _outcome(item: Any) -> Outcome:
    said = _exception(item.exception_info)
    if said is not None:
        return Outcome(None, error=said)
    found = item.result
    if "element_count" not in found:
        return Outcome(bool(item.success))
    considered = int(found["element_count"]) - int(found.get("missing_count") or 0)
    rows = found.get("unexpected_index_list") or ()
    return Outcome(bool(item.success), int(found["unexpected_count"]), considered, () if item.success else rows)


def _exception(info: Mapping[str, Any]) -> str | None:
    """Return the kind of exception that was hidden in a result. Its text may hold values of the data."""
    raised = [entry for entry in (info, *info.values()) if isinstance(entry, Mapping) and entry.get("raised_exception")]
    if not raised:
        return None
    last = str(raised[0].get("exception_traceback") or "").strip().splitlines()[-1:] or ["an unknown error"]
    kind = last[0].partition(":")[0].rpartition(".")[2]
    return f"Great Expectations could not compute it ({kind}). Check that the column's type suits the check."
