"""What the first node of a job printed, from Cloud Logging, read on from an offset.

An offset is the time of the last line that was read, in nanoseconds since 1970: Cloud Logging knows no bytes. While a
job is active, its youngest lines are left for the next look, because lines arrive out of order. Lines that arrive after
the last look at an ended job are not read. A log that cannot be read never fails the job it belongs to.

https://cloud.google.com/logging/docs/reference/v2/rest/v2/LogEntry
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import Any

from airflow_mlops.core.errors import MlopsError
from airflow_mlops.platforms.gcp import GcpApi

Json = dict[str, Any]

ENTRIES = 1000
CHUNK = 1 << 20
SETTLED = 5.0
"""Seconds after which the lines of an active job are taken to have arrived."""

TAIL_LINES, TAIL_CHARACTERS = 20, 4096
SECOND = 10**9

log = logging.getLogger(__name__)


def read_on(api: GcpApi, project: str, job_id: str, offset: int, *, is_over: bool) -> tuple[str, int]:
    """Return at most about 1 MiB of lines from *offset* on, and the next offset.

    :param job_id: number of the CustomJob
    """
    upto = "" if is_over else f' AND timestamp<"{rfc3339(round((time.time() - SETTLED) * SECOND))}"'
    matching = f'{_of(project, job_id)} AND timestamp>"{rfc3339(offset)}"{upto}'
    try:
        entries, has_more = api.log_entries(project, matching, limit=ENTRIES)
    except MlopsError as error:
        log.warning("The log of job %s cannot be read now: %s", job_id, error)
        return "", offset
    found = whole(entries, has_more=has_more)
    return "".join(map(line, found)), nanoseconds(found[-1]["timestamp"]) if found else offset


def last_lines(api: GcpApi, project: str, job_id: str) -> str:
    """Return the last lines that the job printed; an empty text if they cannot be had."""
    try:
        entries, _ = api.log_entries(project, _of(project, job_id), limit=TAIL_LINES, newest_first=True)
    except MlopsError as error:
        log.warning("The log of job %s cannot be read: %s", job_id, error)
        return ""
    return "".join(map(line, reversed(entries))).rstrip("\n")[-TAIL_CHARACTERS:]


def whole(entries: list[Json], *, has_more: bool) -> list[Json]:
    """Return the entries of a page up to a time that no later one shares, and about 1 MiB of text at most."""
    kept, size = len(entries), 0
    for number, entry in enumerate(entries):
        size += len(line(entry))
        if size > CHUNK and number:
            kept, has_more = number, True
            break
    last = entries[kept - 1]["timestamp"] if kept else ""
    earlier = [entry for entry in entries[:kept] if entry["timestamp"] != last]
    return earlier if has_more and earlier else entries[:kept]


def line(entry: Json) -> str:
    """Return what was printed, with its line end."""
    payload = entry.get("jsonPayload") or {}
    text = str(payload.get("message", "") if payload else entry.get("textPayload", ""))
    return text if text.endswith("\n") else f"{text}\n"


def rfc3339(nanoseconds_: int) -> str:
    """Return a time as Cloud Logging writes it, to the nanosecond."""
    seconds, rest = divmod(nanoseconds_, SECOND)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09}Z"


def nanoseconds(text: str) -> int:
    """Return the time that :func:`rfc3339` wrote."""
    moment, _, fraction = text.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(f"{moment}+00:00").timestamp()) * SECOND + int(fraction.ljust(9, "0")[:9] or 0)


def _of(project: str, job_id: str) -> str:
    first = f'logName="projects/{project}/logs/workerpool0-0"'
    return f'resource.type="ml_job" AND resource.labels.job_id="{job_id}" AND {first}'
