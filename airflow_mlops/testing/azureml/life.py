"""From a job that was put to its end: the states it passes, its processes, and the steps of a pipeline one by one."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

from airflow_mlops.testing.azureml.command import Command, Ending, Surroundings, error
from airflow_mlops.testing.azureml.problems import Json
from airflow_mlops.testing.azureml.store import Store, now

_PARENT = re.compile(r"\$\{\{\s*parent\.inputs\.(\w+)\s*\}\}")
PIPELINE_FAILED = "Pipeline has some failed steps. See child run or execution graph for more details."


class Life:
    """Runs one job in a thread of its own.

    :param pending: seconds in the queue
    :param finalizing: seconds from the end of the program to the end of the job
    :param sign: makes the signed address of a file
    """

    def __init__(
        self,
        job: Json,
        store: Store,
        folder: Path,
        around: Surroundings,
        sign: Callable[[Path], str],
        *,
        pending: float,
        finalizing: float,
    ) -> None:
        self.name, self._properties = job["name"], job["properties"]
        self._store, self._folder, self._around, self._sign = store, folder, around, sign
        self._pending, self._finalizing = pending, finalizing
        self._ordered, self._order = threading.Event(), ""
        self.commands: list[Command] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, order: str = "cancel") -> None:
        """Order the end, for a reason that :class:`Command` knows."""
        self._order = self._order or order
        self._ordered.set()
        for command in self.commands:
            command.stop(order)

    def settle(self) -> None:
        """Order the end and wait for it."""
        self.stop()
        self._thread.join(10)

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs any more."""
        return not self._thread.is_alive()

    def file(self, path: str) -> Path | None:
        """Return a file that the job left, of the last node that wrote it: uploads of several nodes overwrite."""
        if not self.is_over or not self.commands:
            return None
        found = [home / path for home in sorted(self.commands[0].folder.glob("node-*")) if (home / path).is_file()]
        return found[-1] if found else None

    def _run(self) -> None:
        for word in ("Starting", "Preparing", "Queued"):
            self._store.move(self.name, word)
        self._ordered.wait(self._pending)
        ending = Ending("Canceled") if self._ordered.is_set() else self._work()
        if ending.status == "Completed" and self._store.move(self.name, "Finalizing"):
            time.sleep(self._finalizing)
        threading.Thread(target=self._report, args=(ending, now()), daemon=True).start()

    def _report(self, ending: Ending, moment: str) -> None:
        """Tell the end when nothing of the job runs any more."""
        self._thread.join()
        self._store.move(self.name, ending.status, endTimeUtc=moment, **({"error": ending.why} if ending.why else {}))

    def _work(self) -> Ending:
        self._store.move(self.name, "Running", startTimeUtc=now())
        if self._properties["jobType"] == "Pipeline":
            return self._steps()
        limit = seconds(self._properties.get("limits", {}).get("timeout", ""))
        return self._command(self.name, self._properties, limit)

    def _command(self, name: str, properties: Json, limit: float | None) -> Ending:
        command = Command(name, properties, self._folder / name, self._around)
        self.commands.append(command)
        if self._ordered.is_set():
            command.stop(self._order)
        command.start()
        log, file = command.log
        self._store.keep_run(name, logFiles={log: self._sign(file)})
        return command.wait(limit)

    def _steps(self) -> Ending:
        children: list[Json] = []
        given = {key: str(one.get("value", "")) for key, one in self._properties.get("inputs", {}).items()}
        for number, (key, step) in enumerate(self._properties["jobs"].items()):
            child = {"runId": f"{self.name}-{number}", "displayName": key, "status": "Running"}
            children.append(child)
            self._store.keep_run(self.name, children=children)
            ending = (
                Ending("Canceled")
                if self._ordered.is_set()
                else self._command(child["runId"], step_job(step, given), None)
            )
            child |= {"status": ending.status} | ({"error": ending.why} if ending.why else {})
            self._store.keep_run(self.name, children=children)
            if ending.status == "Canceled":
                return ending
            if ending.status != "Completed":
                return Ending("Failed", error("UserError", PIPELINE_FAILED))
        return Ending("Completed")


def step_job(step: Json, given: dict[str, str]) -> Json:
    """Return the properties of the command that a step runs, with what the pipeline was given."""
    inputs = {
        key: {"value": _PARENT.sub(lambda found: given[found[1]], str(one["value"]))}
        for key, one in step.get("inputs", {}).items()
    }
    return {"command": step["command"], "inputs": inputs}


def seconds(duration: str) -> float | None:
    """Return the seconds of a duration as the API writes it, ``None`` for none."""
    found = re.fullmatch(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?", duration)
    if found is None:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + rest
