"""What a job's program may report: one JSON object in the file that ``MLOPS_OUTPUT`` names.

Pure. A report that is there and wrong fails the job; it is never read as "nothing was reported".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from airflow_mlops.core.errors import InvalidSpecError, JobFailedError
from airflow_mlops.core.records import Record


@dataclass(frozen=True)
class Output(Record):
    """The report of a job.

    :param model_uri: the model it logged, for example ``models:/m-1f2e``
    :param metrics: final metrics by name, finite numbers
    :param run_id: tracking run it used; by default the one that was made for it
    """

    model_uri: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    run_id: str = ""

    @classmethod
    def read(cls, text: str, where: str) -> Self:
        """Parse a report.

        :param where: its file, for messages
        :raises JobFailedError: it is not JSON, has an unknown key or a metric that is no finite number
        """
        try:
            found = json.loads(text)
        except ValueError as error:
            raise JobFailedError(f"The job's report {where} is not JSON: {error}.") from error
        if not isinstance(found, dict) or not isinstance(found.get("metrics", {}), dict):
            raise JobFailedError(f"The job's report {where} must be an object whose metrics are an object.")
        for key in ("model_uri", "run_id"):
            if not isinstance(found.get(key, ""), str):
                raise JobFailedError(f"The job's report {where}: {key} is {found[key]!r}, not text.")
        try:
            return cls.from_dict({**found, "metrics": _finite(found.get("metrics", {}), where)})
        except InvalidSpecError as error:
            raise JobFailedError(f"The job's report {where} cannot be used: {error}") from error


def _finite(metrics: Mapping[str, Any], where: str) -> dict[str, float]:
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise JobFailedError(f"The job's report {where}: metric {name!r} is {value!r}, not a finite number.")
    return {name: float(value) for name, value in metrics.items()}
