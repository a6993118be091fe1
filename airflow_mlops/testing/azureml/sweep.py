"""The life of a sweep: trials with sampled values, a few at a time, each a command job that really runs."""

from __future__ import annotations

import itertools
import math
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from airflow_mlops.testing.azureml.command import Command, Ending, Surroundings, error
from airflow_mlops.testing.azureml.life import Life, seconds
from airflow_mlops.testing.azureml.problems import Json
from airflow_mlops.testing.azureml.store import Store, now
from airflow_mlops.testing.azureml.sweep_schema import REFERENCE

ALL_FAILED = "The sweep failed: none of its trials completed. See the trials for details."


class SweepLife:
    """Runs one sweep in a thread of its own; to the outside it is like any other job.

    :param pending: seconds in the queue, of the sweep
    :param finalizing: seconds from the end of a trial's program to the end of the trial
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
        self._store, self._pending, self._ordered = store, pending, threading.Event()
        self._make: Callable[[Json], Life] = lambda child: Life(
            child, store, folder, around, sign, pending=0.0, finalizing=finalizing
        )
        self.trials: dict[str, Life] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def commands(self) -> list[Command]:
        """The commands of all trials."""
        return [command for trial in list(self.trials.values()) for command in trial.commands]

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs any more."""
        return not self._thread.is_alive()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, order: str = "cancel") -> None:
        """Order the end of all trials."""
        self._ordered.set()
        for trial in list(self.trials.values()):
            trial.stop(order)

    def settle(self) -> None:
        """Order the end and wait for it."""
        self.stop()
        self._thread.join(10)

    def file(self, path: str) -> Path | None:
        """Return nothing: its trials leave files, not the sweep."""
        return None

    def _run(self) -> None:
        for word in ("Starting", "Preparing", "Queued"):
            self._store.move(self.name, word)
        self._ordered.wait(self._pending)
        if not self._ordered.is_set():
            self._store.move(self.name, "Running", startTimeUtc=now())
        self._work()
        statuses = [self._store.status(name) for name in self.trials]
        moment = now()
        if self._ordered.is_set():
            ending = Ending("Canceled")
        elif "Completed" in statuses:
            ending = Ending("Completed")
            self._store.name_best(self.name, list(self.trials))
        else:
            ending = Ending("Failed", error("UserError", ALL_FAILED))
        self._store.move(self.name, ending.status, endTimeUtc=moment, **({"error": ending.why} if ending.why else {}))

    def _work(self) -> None:
        limits = self._properties.get("limits", {})
        total, most = limits.get("maxTotalTrials", 1000), limits.get("maxConcurrentTrials", 1000)
        limit = seconds(limits.get("timeout", ""))
        end = math.inf if limit is None else time.monotonic() + limit
        waiting = itertools.islice(enumerate(samples(self._properties)), total)
        going: dict[str, Life] = {}
        more = True
        while going or (more and not self._ordered.is_set()):
            while more and len(going) < most and not self._ordered.is_set():
                following = next(waiting, None)
                more = following is not None
                if following is not None:
                    name = f"{self.name}_{following[0]}"
                    going[name] = self._begin(name, following[1])
            if time.monotonic() > end:
                self.stop("timeout")
            going = {name: trial for name, trial in going.items() if self._is_going(name, trial)}
            time.sleep(0.01)

    def _is_going(self, name: str, trial: Life) -> bool:
        if self._ordered.is_set():
            trial.stop()
        return not trial.is_over or self._store.status(name) not in ("Completed", "Failed", "Canceled")

    def _begin(self, name: str, values: Json) -> Life:
        job = self._store.put_trial(self.name, name, trial_job(self._properties, values))
        trial = self.trials[name] = self._make(job)
        trial.start()
        return trial


def trial_job(sweep: Json, values: Json) -> Json:
    """Return the properties of a trial's command job: values reach it as variables, which its command refers to.

    https://learn.microsoft.com/python/api/azure-ai-ml/azure.ai.ml.sweep.sweepjob
    """
    trial, limits = sweep["trial"], sweep.get("limits", {})
    variables = {f"AZUREML_SWEEP_{name}": str(value) for name, value in values.items()}
    found = {
        **{key: sweep[key] for key in ("experimentName", "computeId", "identity", "queueSettings") if key in sweep},
        **trial,
        "jobType": "Command",
        "command": REFERENCE.sub(r"$AZUREML_SWEEP_\1", trial["command"]),
        "environmentVariables": {**trial.get("environmentVariables", {}), **variables},
    }
    if timeout := limits.get("trialTimeout"):
        found["limits"] = {"jobLimitsType": "Command", "timeout": timeout}
    return found


def samples(sweep: Json) -> Iterator[Json]:
    """Yield the values of one trial after the other: all of a grid, or as many as anybody takes at random."""
    space, algorithm = sweep["searchSpace"], sweep["samplingAlgorithm"]
    if algorithm["samplingAlgorithmType"] == "Grid":
        rows = itertools.product(*(expression[1][0] for expression in space.values()))
        yield from (dict(zip(space, row, strict=True)) for row in rows)
        return
    chance = random.Random(algorithm.get("seed"))  # noqa: S311
    while True:
        yield {name: sampled(chance, *expression) for name, expression in space.items()}


def sampled(chance: random.Random, kind: str, given: list[Any]) -> Any:
    """Return one value of an expression, as the vendor's formula for it has it."""
    if kind == "choice":
        return chance.choice(given[0])
    if kind == "randint":
        return chance.randrange(given[0])
    plain = re.sub("^q", "", kind)
    value = chance.uniform(*given[:2]) if plain.endswith("uniform") else chance.gauss(*given[:2])
    value = math.exp(value) if plain.startswith("log") else value
    return float(round(value / given[2]) * given[2]) if kind.startswith("q") else value
