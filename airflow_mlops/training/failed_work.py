"""What the platform bills for attempts that brought no result. Pure, and counted once, however often a worker dies.

The sum is taken from the record of the attempt before, never from the new one: carried out again, it is the same.
"""

from __future__ import annotations

from dataclasses import replace

from airflow_mlops.training.contract import JobStatus
from airflow_mlops.training.driver import JobRecord


def with_failed_work(record: JobRecord, before: JobRecord, status: JobStatus | None, *, spot: bool) -> JobRecord:
    """Return the record of the next attempt with what the one *before*, which is over, was billed for nothing.

    :param status: how it ended; ``None`` when the platform does not know it any more, and then it cannot be counted
    :param spot: whether the spec asks for spot machines
    """
    billed = 0.0 if status is None or status.billed_seconds is None else status.billed_seconds
    if before.generation != record.generation:
        return record
    if spot and not before.on_demand:
        return replace(record, failed_spot_seconds=before.failed_spot_seconds + billed)
    return replace(record, failed_seconds=before.failed_seconds + billed)
