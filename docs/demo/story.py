"""What the demo does: months of flights arrive one by one, and three things go wrong on purpose.

Everything happens through Airflow's scheduler. This file only lands files, sends requests, triggers and reads.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flights
import httpx
from airflow_api import Airflow
from table import Row, interval
from traffic import Traffic

PUBLISH, TRAIN, MONITOR = "flights_publish_data", "flights_train_and_deploy", "flights_monitor_and_retrain"
ENDPOINT = "flight-delays"
LIVE_REQUESTS = 400
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August")
Say = Callable[[str], None]


class Story:
    """One telling of the story; what was told is kept in ``story.json``, so that it can go on later."""

    def __init__(self, root: Path, airflow: Airflow, gateway_url: str, token: str = "", say: Say = print) -> None:
        self.root, self.airflow, self.say = root, airflow, say
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self.gateway = httpx.Client(base_url=gateway_url, headers=headers, timeout=30, trust_env=False)
        self._file = root / "story.json"
        told = json.loads(self._file.read_text()) if self._file.exists() else []
        self.rows = [Row(**row) for row in told]

    def tell(self, months: int) -> None:
        """Tell what was not told yet: the months, a broken delivery, a worse model, a bad model."""
        for month in range(1, months + 1):
            if month == 2:
                self._once(f"{MONTHS[1]} (broken rows)", lambda: self.broken_delivery(2))
            self._once(MONTHS[month - 1], lambda month=month: self.month(month))
        self._once("a worse model", lambda: self.worse_model(months))
        self._once("a bad model", lambda: self.bad_model(months))

    def month(self, month: int) -> Row:
        """Let a month pass: its flights are served, looked at for drift, landed, learned from, rolled out."""
        if month == 1:
            self._land(1)
            return self._learn(self._publish("2013-01"), self._nothing_served())
        since = time.time()
        with self._traffic(month) as live:
            live.wait_for(LIVE_REQUESTS)
            self._land(month)
            before = self.airflow.run_ids(TRAIN)
            tag = f"2013-{month:02}"
            drift, published = self._monitor(since, tag)
            if not published:
                self._publish(tag)
            return self._learn(before, drift)

    def broken_delivery(self, month: int) -> Row:
        """Land a delivery with broken rows: the gate must stop it before anything learns from it."""
        self._land(month)
        flights.break_rows(self._landing)
        return self._learn(self._publish(f"2013-{month:02}-broken"), Row(month=""), must_fail="validate")

    def worse_model(self, month: int) -> Row:
        """Somebody trains on one feature only: the gate must keep the champion."""
        return self._by_hand(month, {"training_parameters": {"features": "distance"}})

    def bad_model(self, month: int) -> Row:
        """Somebody opens the gate for a model that swaps the classes: the canary must take it back."""
        with self._traffic(month):
            wide_open = {"training_parameters": {"invert": 1}, "mode": "non_inferiority", "margin": 1.0, "floors": {}}
            return self._by_hand(month, wide_open, must_fail="canary")

    @property
    def _landing(self) -> Path:
        return self.root / "landing" / "flights"

    def _land(self, month: int) -> None:
        """Put a month where deliveries land, all at once."""
        fresh = flights.write_month(month, self._landing.with_name("flights.part"), self.root / "cache")
        shutil.rmtree(self._landing, ignore_errors=True)
        fresh.rename(self._landing)

    def _publish(self, tag: str) -> set[str]:
        """Publish what has landed; return the training runs there were before."""
        before = self.airflow.run_ids(TRAIN)
        run = self.airflow.trigger(PUBLISH, {"tag": tag, "message": f"Flights of {tag}"})
        if self.airflow.follow(PUBLISH, run, self.say) != "success":
            raise SystemExit(f"The data of {tag} could not be published. See the task's log in Airflow.")
        return before

    def _monitor(self, since: float, tag: str) -> tuple[Row, bool]:
        """Look for drift in what was served since; return the row so far, and whether drift published the data."""
        self.gateway.post(f"/v1/endpoints/{ENDPOINT}/flush").raise_for_status()
        run = self.airflow.trigger(MONITOR, {"since": str(since), "tag": tag})
        if self.airflow.follow(MONITOR, run, self.say) != "success":
            raise SystemExit("The monitoring run failed. See the task's log in Airflow.")
        report = self.airflow.result(MONITOR, run, "detect_drift")
        columns = report["drifted"]
        shown = ", ".join(columns[:2]) + (f" +{len(columns) - 2}" if len(columns) > 2 else "")
        published = self.airflow.result(MONITOR, run, "publish_labelled_data") is not None
        return Row(month="", drift=f"{report['verdict']} {shown}".strip()), published

    def _learn(self, before: set[str], row: Row, must_fail: str = "") -> Row:
        """Wait for the training run that the new data version starts, and note what came of it."""
        return self._read(self.airflow.wait_for_new_run(TRAIN, before), row, must_fail)

    def _by_hand(self, month: int, conf: dict[str, Any], must_fail: str = "") -> Row:
        run = self.airflow.trigger(TRAIN, {"data_revision": f"2013-{month:02}", **conf})
        return self._read(run, Row(month=""), must_fail)

    def _read(self, run: str, row: Row, must_fail: str) -> Row:
        """Follow a training run and fill the row from what its tasks returned.

        :param must_fail: the only task that fails in this chapter; nothing else may
        """
        self.airflow.follow(TRAIN, run, self.say)
        states = {task["task_id"]: task["state"] for task in self.airflow.tasks(TRAIN, run)}
        failed = [task for task, state in states.items() if state == "failed"]
        if failed != ([must_fail] if must_fail else []):
            raise SystemExit(f"Failed: {failed}, expected: {must_fail or 'nothing'}. See the run {run!r} in Airflow.")
        data = self.airflow.result(TRAIN, run, "materialise") or {}
        row.md5 = data.get("version", {}).get("digest", "-").removeprefix("md5:")
        report = self.airflow.result(TRAIN, run, "validate")
        row.validation = report["status"] if report else "fail"
        evaluation = self.airflow.result(TRAIN, run, "evaluate") or {}
        row.challenger, row.champion = interval(evaluation.get("challenger")), interval(evaluation.get("champion"))
        row.decision = self._decision(states, evaluation)
        row.traffic = self._served()
        return row

    def _decision(self, states: dict[str, str], evaluation: dict[str, Any]) -> str:
        if states.get("promote") == "skipped":
            return f"kept champion ({evaluation['decision']['verdict']})"
        if states.get("promote") != "success":
            return "stopped at the gate"
        if states.get("canary") == "failed":
            return "rolled back by canary"
        return "promoted" if states.get("canary") == "success" else f"promoted, canary {states.get('canary')}"

    def _served(self) -> str:
        """Return the traffic as read back from the gateway."""
        answer = self.gateway.get(f"/v1/endpoints/{ENDPOINT}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return "-"
        shares = {r["revision"]: r["traffic"] for r in answer.raise_for_status().json()["revisions"] if r["traffic"]}
        return ", ".join(f"{revision} {share:.0f} %" for revision, share in shares.items())

    def _traffic(self, month: int) -> Traffic:
        return Traffic(self.gateway, ENDPOINT, flights.requests_of(month, self.root / "cache", 4000))

    def _nothing_served(self) -> Row:
        return Row(month="", drift="nothing served yet")

    def _once(self, title: str, act: Callable[[], Row]) -> None:
        """Tell one chapter, unless it was told before, and keep it."""
        if title in {row.month for row in self.rows}:
            self.say(f"{title}: done before")
            return
        with self._timed(title) as clock:
            row = act()
        row.month, row.seconds = title, clock[0]
        self.rows.append(row)
        self._file.write_text(json.dumps([row.to_dict() for row in self.rows], indent=1))

    @contextmanager
    def _timed(self, title: str) -> Iterator[list[float]]:
        self.say(f"\n{title}")
        clock, start = [0.0], time.monotonic()
        yield clock
        clock[0] = time.monotonic() - start
