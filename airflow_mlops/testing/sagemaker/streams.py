"""The log groups of CloudWatch: events by stream, in the order they came, and the three requests that read them.

https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_FilterLogEvents.html
"""

from __future__ import annotations

import threading
import time
from typing import IO

from airflow_mlops.testing.sagemaker.problems import Json, Problem

PAGE_BYTES = 1 << 20


class Streams:
    """All log groups of one region."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: dict[str, dict[str, list[Json]]] = {}

    def write(self, group: str, stream: str, message: str) -> None:
        """Add a line; the stream is made with its first one."""
        event = {"timestamp": int(time.time() * 1000), "message": message}
        with self._lock:
            self._groups.setdefault(group, {}).setdefault(stream, []).append(event)

    def copy(self, group: str, stream: str, source: IO[bytes]) -> None:
        """Add the lines of *source* until it ends."""
        for line in source:
            self.write(group, stream, line.decode(errors="replace").rstrip("\n"))

    def lines(self, group: str, start: str) -> list[str]:
        """Return the messages of all streams whose name begins with *start*."""
        return [event["message"] for event in self._events(group, start)]

    def describe_log_streams(self, body: Json) -> Json:
        """Return the streams of a group, by name."""
        names = sorted(name for name in self._group(body) if name.startswith(body.get("logStreamNamePrefix", "")))
        return {"logStreams": [{"logStreamName": name} for name in names]}

    def get_log_events(self, body: Json) -> Json:
        """Return the first or, by default, the last events of a stream."""
        events = self._group(body).get(body["logStreamName"])
        if events is None:
            raise Problem("ResourceNotFoundException", "The specified log stream does not exist.")
        limit = body.get("limit", 10_000)
        kept = events[:limit] if body.get("startFromHead") else events[-limit:]
        return {"events": [dict(event) for event in kept], "nextForwardToken": "f/0", "nextBackwardToken": "b/0"}

    def filter_log_events(self, body: Json) -> Json:
        """Return the events of all streams with a prefix, by time; at most 10,000 or 1 MiB a page."""
        self._group(body)
        found = self._events(body["logGroupName"], body.get("logStreamNamePrefix", ""))
        found = [event for event in found if event["timestamp"] >= body.get("startTime", 0)]
        start, end, size = int(body.get("nextToken", "0")), 0, 0
        for end in range(start, len(found)):
            size += len(found[end]["message"])
            if size > PAGE_BYTES or end - start >= body.get("limit", 10_000):
                break
        else:
            return {"events": found[start:], "searchedLogStreams": []}
        return {"events": found[start:end], "searchedLogStreams": [], "nextToken": str(end)}

    def _group(self, body: Json) -> dict[str, list[Json]]:
        with self._lock:
            found = self._groups.get(body["logGroupName"])
        if found is None:
            raise Problem("ResourceNotFoundException", "The specified log group does not exist.")
        return found

    def _events(self, group: str, start: str) -> list[Json]:
        with self._lock:
            streams = self._groups.get(group, {})
            events = [
                {**event, "logStreamName": name, "eventId": f"{number}"}
                for name in sorted(streams)
                if name.startswith(start)
                for number, event in enumerate(streams[name])
            ]
        return sorted(events, key=lambda event: event["timestamp"])
