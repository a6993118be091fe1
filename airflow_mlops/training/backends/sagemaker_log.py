"""What the first node of a job printed, from CloudWatch, read on from an offset; also when SageMaker replaced the node.

An offset is the time of the last line that was read, and how many lines of that millisecond were. A line that reaches
CloudWatch later than one printed after it is passed over. A log that cannot be read never fails the job it belongs to.

https://docs.aws.amazon.com/sagemaker/latest/dg/logging-cloudwatch.html
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from airflow_mlops.core.errors import MlopsError, NotFoundError
from airflow_mlops.platforms.aws import Aws

Json = dict[str, Any]

GROUP = "/aws/sagemaker/TrainingJobs"
CHUNK = 1 << 20
COUNT = 20
"""Bits of an offset for the lines of one millisecond."""

MOST_PAGES = 50
TAIL_LINES = 20

log = logging.getLogger(__name__)


def read_on(aws: Aws, region: str, name: str, offset: int) -> tuple[str, int]:
    """Return at most 1 MiB of whole lines from *offset* on, and the next offset."""
    at, seen = offset >> COUNT, offset & ((1 << COUNT) - 1)
    known, size = seen, 0
    text: list[str] = []
    try:
        for event in _events(aws, region, f"{name}/algo-1-", at):
            if event["timestamp"] == offset >> COUNT and known:
                known -= 1
                continue
            line = event["message"].rstrip("\n") + "\n"
            size += len(line.encode())
            if text and size > CHUNK:
                break
            text.append(line)
            at, seen = (at, seen + 1) if event["timestamp"] == at else (event["timestamp"], 1)
    except NotFoundError:  # nothing was printed yet
        return "", offset
    except MlopsError as error:
        log.warning("The log of job %s cannot be read now: %s", name, error)
        return "", offset
    return "".join(text), (at << COUNT) + seen


def last_lines(aws: Aws, region: str, name: str) -> str:
    """Return the last lines that the first node printed; an empty text if they cannot be had."""
    where = {"logGroupName": GROUP, "logStreamNamePrefix": f"{name}/algo-1-"}
    try:
        streams = aws.call("logs", "describe_log_streams", region=region, **where)["logStreams"]
        if not streams:
            return ""
        last = {"logStreamName": streams[-1]["logStreamName"], "limit": TAIL_LINES, "startFromHead": False}
        events = aws.call("logs", "get_log_events", region=region, logGroupName=GROUP, **last)["events"]
    except NotFoundError:
        return ""
    except MlopsError as error:
        log.warning("The log of job %s cannot be read: %s", name, error)
        return ""
    return "\n".join(event["message"].rstrip("\n") for event in events)


def _events(aws: Aws, region: str, prefix: str, since: int) -> Iterator[Json]:
    """Yield events in the order of their times. A page may be empty and yet not be the last."""
    query: Json = {"logGroupName": GROUP, "logStreamNamePrefix": prefix, "startTime": since}
    for _ in range(MOST_PAGES):
        answer = aws.call("logs", "filter_log_events", region=region, **query)
        yield from answer["events"]
        if not answer.get("nextToken"):
            return
        query["nextToken"] = answer["nextToken"]
