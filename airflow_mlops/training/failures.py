"""What a failed job means to its task: one table, from the reasons that platforms give to our errors."""

from __future__ import annotations

from airflow_mlops.core.errors import (
    JobFailedError,
    JobInterruptedError,
    JobTimeoutError,
    MlopsError,
    OutOfMemoryError,
    QuotaExceededError,
)
from airflow_mlops.training.contract import FailureReason

FAILURES: dict[FailureReason, tuple[type[MlopsError], str]] = {
    FailureReason.NONE: (JobFailedError, ""),
    FailureReason.USER_CODE: (JobFailedError, ""),
    FailureReason.OUT_OF_MEMORY: (OutOfMemoryError, "It ran out of memory: give its nodes more."),
    FailureReason.TIMEOUT: (JobTimeoutError, "It ran longer than max_runtime: raise it, or make the job smaller."),
    FailureReason.QUOTA: (QuotaExceededError, "The platform's quota is used up: ask for less, or try again later."),
    FailureReason.PLATFORM: (JobInterruptedError, "The platform broke it: another try starts a new job."),
}
"""What a failed job means to its task: the class says whether another try can help, the text what to do."""
