"""What a Job's state means: pure decisions of the Job controller.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/ (pod failure policy, termination, conditions as
written since 1.31: first FailureTarget or SuccessCriteriaMet, then Failed or Complete when no pod is left running).
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from airflow_mlops.testing.kubernetes.conditions import condition, is_true
from airflow_mlops.testing.kubernetes.defaults import COMPLETION_INDEX
from airflow_mlops.testing.kubernetes.problems import Json


@dataclass(frozen=True)
class Verdict:
    """How a Job ends: *kind* is FailureTarget or SuccessCriteriaMet."""

    kind: str
    reason: str
    message: str


REACHED = Verdict("SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods")
TOO_OFTEN = Verdict("FailureTarget", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
TOO_LONG = Verdict("FailureTarget", "DeadlineExceeded", "Job was active longer than specified deadline")
FINAL = {"FailureTarget": "Failed", "SuccessCriteriaMet": "Complete"}


def is_finished(job: Json) -> bool:
    """Say whether the Job has its last condition."""
    return is_true(job, "Complete") or is_true(job, "Failed")


def pending_verdict(job: Json) -> Verdict | None:
    """Return the verdict that was written while pods were still running."""
    for kind in FINAL:
        if is_true(job, kind):
            found = condition(job, kind)
            return Verdict(kind, found.get("reason", ""), found.get("message", ""))
    return None


def verdict(job: Json, moment: datetime.datetime) -> Verdict | None:
    """Return how the Job must end by its counts and its time, or None if it goes on."""
    spec, status = job["spec"], job["status"]
    if status.get("succeeded", 0) >= spec["completions"]:
        return REACHED
    if status.get("failed", 0) > spec["backoffLimit"]:
        return TOO_OFTEN
    end = deadline(job)
    return TOO_LONG if end is not None and moment >= end else None


def deadline(job: Json) -> datetime.datetime | None:
    """Return when the Job's active time is over."""
    seconds, start = job["spec"].get("activeDeadlineSeconds"), job["status"].get("startTime")
    if seconds is None or start is None:
        return None
    return datetime.datetime.fromisoformat(start) + datetime.timedelta(seconds=seconds)


def expiry(job: Json) -> datetime.datetime | None:
    """Return when a finished Job is removed by itself."""
    seconds = job["spec"].get("ttlSecondsAfterFinished")
    if seconds is None or not is_finished(job):
        return None
    last = condition(job, "Complete") or condition(job, "Failed")
    return datetime.datetime.fromisoformat(last["lastTransitionTime"]) + datetime.timedelta(seconds=seconds)


def failure_action(job: Json, pod: Json) -> tuple[str, Verdict | None]:
    """Return what a failed pod means: Count, Ignore, or FailJob with its verdict; the first rule that fits decides."""
    rules = (job["spec"].get("podFailurePolicy") or {}).get("rules", [])
    for index, rule in enumerate(rules):
        why = _fits_codes(rule.get("onExitCodes"), pod) or _fits_conditions(rule.get("onPodConditions"), pod)
        if why:
            name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            told = why.format(name=name) + f" matching {rule['action']} rule at index {index}"
            return rule["action"], Verdict("FailureTarget", "PodFailurePolicy", told)
    return "Count", None


def _fits_codes(wanted: Json | None, pod: Json) -> str:
    for status in pod["status"].get("containerStatuses", []) if wanted else []:
        code = status["state"].get("terminated", {}).get("exitCode", 0)
        is_named = wanted is not None and wanted.get("containerName") in {None, status["name"]}
        if wanted and code and is_named and (code in wanted["values"]) == (wanted["operator"] == "In"):
            return f"Container {status['name']} for pod {{name}} failed with exit code {code}"
    return ""


def _fits_conditions(patterns: list[Json] | None, pod: Json) -> str:
    for pattern in patterns or []:
        if condition(pod, pattern["type"]).get("status") == pattern.get("status", "True"):
            return f"Pod {{name}} has condition {pattern['type']}"
    return ""


def next_index(job: Json, active: list[Json]) -> int | None:
    """Return the lowest completion index that is neither done nor under way; None if there is none."""
    taken = done_indexes(job) | {index_of(pod) for pod in active}
    return next((index for index in range(job["spec"]["completions"]) if index not in taken), None)


def index_of(pod: Json) -> int:
    """Return the completion index of a pod of an Indexed Job."""
    return int((pod["metadata"].get("annotations") or {}).get(COMPLETION_INDEX, -1))


def done_indexes(job: Json) -> set[int]:
    """Read ``status.completedIndexes``, such as ``0-2,5``."""
    done: set[int] = set()
    for part in filter(None, job["status"].get("completedIndexes", "").split(",")):
        first, _, last = part.partition("-")
        done |= set(range(int(first), int(last or first) + 1))
    return done


def written_indexes(done: set[int]) -> str:
    """Write indexes as ``status.completedIndexes`` has them: three or more in a row become a range."""
    runs: list[list[int]] = []
    for index in sorted(done):
        if runs and runs[-1][-1] == index - 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)
