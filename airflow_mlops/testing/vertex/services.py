"""The other services a job needs: Cloud Storage, Cloud Logging, Secret Manager, and its machine's metadata server."""

from __future__ import annotations

import base64
import datetime
import json
import secrets
import urllib.parse
from functools import partial
from pathlib import Path
from typing import Any

from airflow_mlops.testing.kubernetes.container import Line
from airflow_mlops.testing.vertex.custom_run import CustomRun
from airflow_mlops.testing.vertex.filters import matcher
from airflow_mlops.testing.vertex.problems import Json, Problem, bad
from airflow_mlops.testing.vertex.store import Store

LOG_FIELDS = ("resource.type", "resource.labels.job_id", "logName", "timestamp")
LOG_QUERY = ("resourceNames", "filter", "orderBy", "pageSize", "pageToken")
MOST_ENTRIES = 1000


class Services:
    """Buckets are folders; logs are what containers printed; secrets are told by a test."""

    def __init__(self, store: Store, buckets: Path) -> None:
        self._store, self._buckets = store, buckets
        self._secrets: dict[str, str] = {}
        self._token = secrets.token_urlsafe(24)

    def keep_secret(self, project: str, name: str, value: str, version: str = "1") -> None:
        """Keep a version of a secret, which becomes the latest."""
        for known in (version, "latest"):
            self._secrets[f"projects/{project}/secrets/{name}/versions/{known}"] = value

    def token(self, headers: Json) -> Json:
        """Return a token of the machine's account.

        https://cloud.google.com/compute/docs/access/authenticate-workloads
        """
        if headers.get("Metadata-Flavor") != "Google":
            raise Problem("PERMISSION_DENIED", "Missing Metadata-Flavor:Google header.")
        return {"access_token": self._token, "expires_in": 3599, "token_type": "Bearer"}

    def secret(self, name: str, headers: Json) -> Json:
        """Return the value of a version of a secret, to who has the machine's token."""
        if headers.get("Authorization") != f"Bearer {self._token}":
            raise Problem("UNAUTHENTICATED", "Request had invalid authentication credentials.")
        if name not in self._secrets:
            raise Problem("NOT_FOUND", f"Secret Version [{name}] not found.")
        return {"name": name, "payload": {"data": base64.b64encode(self._secrets[name].encode()).decode()}}

    def object(self, bucket: str, path: str, query: Json) -> bytes:
        """Return the content of an object."""
        if query != {"alt": "media"}:
            raise Problem("UNIMPLEMENTED", "The Vertex AI fake gives only the content of objects.")
        found = self._buckets / bucket / urllib.parse.unquote(path)
        if not (self._buckets / bucket).is_dir():
            raise Problem("NOT_FOUND", "The specified bucket does not exist.")
        if not found.is_file():
            raise Problem("NOT_FOUND", f"No such object: {bucket}/{urllib.parse.unquote(path)}")
        return found.read_bytes()

    def entries(self, raw: bytes) -> Json:
        """Return what the first nodes of jobs printed, as ``entries.list`` does.

        https://cloud.google.com/logging/docs/reference/v2/rest/v2/entries/list
        """
        asked = json.loads(raw or b"{}")
        if unknown := [key for key in asked if key not in LOG_QUERY]:
            raise bad(f"Invalid JSON payload received. Unknown name {unknown[0]}: Cannot find field.")
        if not asked.get("resourceNames") or asked.get("pageToken"):
            raise bad("resource_names are required, and page tokens are not modelled.")
        matches = matcher(asked.get("filter", ""), LOG_FIELDS)
        found = [each for each in self._all() if each["logName"].startswith(asked["resourceNames"][0] + "/")]
        found = [each for each in found if matches(partial(_field, each))]
        found.sort(key=lambda each: str(each["timestamp"]), reverse=asked.get("orderBy") == "timestamp desc")
        size = min(int(asked.get("pageSize") or 50), MOST_ENTRIES)
        page: Json = {"entries": found[:size]} if found else {}
        return page | ({"nextPageToken": "more"} if len(found) > size else {})

    def _all(self) -> list[Json]:
        with self._store.lock:
            runs = [(entry, entry.run) for entry in self._store.entries if isinstance(entry.run, CustomRun)]
        return [_log_entry(entry.project, entry.job_id, line) for entry, run in runs for line in run.lines]


def _log_entry(project: str, job_id: str, line: Line) -> Json:
    return {
        "logName": f"projects/{project}/logs/workerpool0-0",
        "resource": {"type": "ml_job", "labels": {"job_id": job_id, "task_name": "workerpool0-0"}},
        "timestamp": line[0].astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z"),
        "severity": "INFO",
        "jsonPayload": {"message": line[1].decode(errors="replace"), "levelname": "INFO"},
    }


def _field(entry: Json, name: str) -> Any:
    found: Any = entry
    for part in name.split("."):
        found = found[part]
    return found
