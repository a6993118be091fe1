"""A small client of Airflow's REST API: trigger a run, follow it, read what its tasks returned."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx

FINISHED = {"success", "failed"}
Say = Callable[[str], None]


class Airflow:
    """One signed-in user of one Airflow."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)
        self._login = {"username": user, "password": password}
        self._sign_in()

    def _sign_in(self) -> None:
        token = self._http.post("/auth/token", json=self._login).raise_for_status().json()["access_token"]
        self._http.headers["authorization"] = f"Bearer {token}"

    def _call(self, method: str, path: str, **kwargs: Any) -> Any:
        answer = self._http.request(method, f"/api/v2/{path}", **kwargs)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            self._sign_in()
            answer = self._http.request(method, f"/api/v2/{path}", **kwargs)
        if answer.is_error:
            raise SystemExit(f"Airflow answered {answer.status_code} to {method} {path}: {answer.text[:500]}")
        return answer.json() if answer.content else None

    def wait_for_dags(self, dag_ids: set[str], timeout: float = 120) -> None:
        """Return once all *dag_ids* were parsed; show the import errors when they are not in time."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            known = {dag["dag_id"] for dag in self._call("GET", "dags", params={"limit": 100})["dags"]}
            if dag_ids <= known:
                return
            time.sleep(1)
        errors = self._call("GET", "importErrors")["import_errors"]
        raise SystemExit(f"Airflow did not parse {sorted(dag_ids)} in {timeout:.0f} s: {json.dumps(errors)[:2000]}")

    def trigger(self, dag_id: str, conf: dict[str, Any], note: str = "") -> str:
        """Start a run by hand and return its id."""
        body = {"logical_date": None, "conf": conf, "note": note or None}
        return str(self._call("POST", f"dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def run_ids(self, dag_id: str) -> set[str]:
        """Return the ids of the DAG's newest 100 runs."""
        found = self._call("GET", f"dags/{dag_id}/dagRuns", params={"limit": 100, "order_by": "-run_after"})
        return {run["dag_run_id"] for run in found["dag_runs"]}

    def wait_for_new_run(self, dag_id: str, before: set[str], timeout: float = 60) -> str:
        """Return the run that an asset event started since *before* was read."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if new := self.run_ids(dag_id) - before:
                return sorted(new)[-1]
            time.sleep(0.5)
        raise SystemExit(f"No new run of {dag_id} came within {timeout:.0f} s of its asset event.")

    def follow(self, dag_id: str, run_id: str, say: Say, timeout: float = 420) -> str:
        """Show every task as it ends, wait for the run's end and return its state."""
        seen: set[str] = set()
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            state = self._call("GET", f"dags/{dag_id}/dagRuns/{run_id}")["state"]
            for task in self.tasks(dag_id, run_id):
                if task["state"] in (*FINISHED, "skipped", "upstream_failed") and task["task_id"] not in seen:
                    seen.add(task["task_id"])
                    seconds = f" {task['duration']:.0f} s" if task["duration"] else ""
                    say(f"{task['task_id']}: {task['state']}{seconds}")
            if state in FINISHED:
                return str(state)
            time.sleep(0.7)
        raise SystemExit(f"{dag_id} / {run_id} did not end in {timeout:.0f} s. See its page in Airflow.")

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the run's task instances in the order of their start."""
        found = self._call("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        return sorted(found, key=lambda task: task["start_date"] or "9")

    def result(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """Return what a task returned, or ``None``."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        answer = self._http.get(path, params={"stringify": False})
        return None if answer.status_code == httpx.codes.NOT_FOUND else answer.raise_for_status().json()["value"]
