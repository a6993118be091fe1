"""The life of one tuning job: trials begin while there is room, and the best one is kept, in a thread of its own.

The strategies Bayesian and Hyperband propose at random here, as Random does. Early stopping, completion criteria, warm
starts and the limit of the whole search's time are not modelled.

https://docs.aws.amazon.com/sagemaker/latest/dg/automatic-model-tuning-how-it-works.html
"""

from __future__ import annotations

import itertools
import math
import random
import secrets
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from airflow_mlops.testing.sagemaker.problems import Json
from airflow_mlops.testing.sagemaker.run import OVER, TICK
from airflow_mlops.testing.sagemaker.training import Training

HOPELESS = 5
"""Trials without any value after which the service gives up."""

STATIC, TUNED = "StaticHyperParameters", "TunedHyperParameters"


class Search:
    """One tuning job and its trials."""

    def __init__(self, training: Training, body: Json) -> None:
        self._training, self._lock = training, threading.RLock()
        self._config, self._definition = body["HyperParameterTuningJobConfig"], body["TrainingJobDefinition"]
        self._name: str = body["HyperParameterTuningJobName"]
        self._trials: dict[str, dict[str, str]] = {}
        self._proposals = proposals(self._config)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._job = {**body, "CreationTime": datetime.now(UTC)}
        self._enter("InProgress")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Order the end of the search and of all its trials."""
        with self._lock:
            if self._job["HyperParameterTuningJobStatus"] == "InProgress":
                self._enter("Stopping")
            self._stop.set()

    def wait(self) -> None:
        """Wait for its end."""
        self._thread.join(30)

    def set_fields(self, **fields: Any) -> None:
        """Write fields of the description."""
        with self._lock:
            self._job.update(fields)

    def told(self) -> Json:
        """Return the description, with its tags."""
        trials = self.trials()
        counted = {"TrainingJobStatusCounters": _counted(trials), "ObjectiveStatusCounters": _objectives(trials)}
        best = self._best(trials)
        with self._lock:
            return {**counted, **({"BestTrainingJob": best} if best else {}), **self._job}

    def trials(self) -> list[Json]:
        """Return all trials, oldest first."""
        with self._lock:
            known = dict(self._trials)
        return [self._summary(name, tuned) for name, tuned in known.items()]

    def _live(self) -> None:
        while not self._stop.is_set():
            trials = self.trials()
            if (reason := _hopeless(trials)) or (not self._begin(trials) and not _running(trials)):
                break
            time.sleep(TICK)
        self._end_trials()
        if self._stop.is_set():
            self._enter("Stopped")
        elif reason or (reason := _hopeless(self.trials(), 1)):
            self._enter("Failed", FailureReason=reason)
        else:
            self._enter("Completed")

    def _begin(self, trials: list[Json]) -> bool:
        """Begin trials while there is room; say whether any was begun."""
        limits = self._config["ResourceLimits"]
        room = limits["MaxParallelTrainingJobs"] - len(_running(trials))
        left = limits.get("MaxNumberOfTrainingJobs", math.inf) - len(trials)
        begun = 0
        for tuned in itertools.islice(self._proposals, max(0, int(min(room, left)))):
            self._begin_one(len(trials) + begun + 1, tuned)
            begun += 1
        return begun > 0

    def _begin_one(self, number: int, tuned: dict[str, str]) -> None:
        name = f"{self._name}-{number:03d}-{secrets.token_hex(4)}"
        objective = self._config["HyperParameterTuningJobObjective"]["MetricName"]
        values = {**self._definition.get(STATIC, {}), **tuned, "_tuning_objective_metric": objective}
        fields = {key: value for key, value in self._definition.items() if key != STATIC}
        tags = {"Tags": self._job["Tags"]} if self._job.get("Tags") else {}
        self._training.create_training_job({**fields, **tags, "TrainingJobName": name, "HyperParameters": values})
        with self._lock:
            self._trials[name] = tuned

    def _end_trials(self) -> None:
        """Order the end of what still runs, and wait for it."""
        runs = [self._training.runs[name] for name in self._trials]
        for run in runs:
            if run.job["TrainingJobStatus"] not in OVER:
                run.order("stop")
        for run in runs:
            run.wait()

    def _summary(self, name: str, tuned: dict[str, str]) -> Json:
        job = self._training.describe_training_job({"TrainingJobName": name})
        kept = ("TrainingJobName", "TrainingJobArn", "CreationTime", "TrainingEndTime", "TrainingJobStatus")
        found = {key: job[key] for key in (*kept, "FailureReason") if key in job}
        metrics = {one["MetricName"]: one["Value"] for one in job.get("FinalMetricDataList", [])}
        objective = self._config["HyperParameterTuningJobObjective"]
        if job["TrainingJobStatus"] == "Completed" and objective["MetricName"] in metrics:
            told = {**objective, "Value": metrics[objective["MetricName"]]}
            found |= {"FinalHyperParameterTuningJobObjectiveMetric": told, "ObjectiveStatus": "Succeeded"}
        else:
            found["ObjectiveStatus"] = "Failed" if job["TrainingJobStatus"] in OVER else "Pending"
        return {**found, TUNED: tuned}

    def _best(self, trials: list[Json]) -> Json | None:
        valued = [one for one in trials if one["ObjectiveStatus"] == "Succeeded"]
        sign = 1 if self._config["HyperParameterTuningJobObjective"]["Type"] == "Maximize" else -1
        return max(valued, key=lambda one: sign * _value(one), default=None)

    def _enter(self, status: str, **fields: object) -> None:
        now = datetime.now(UTC)
        if status in OVER:
            fields["HyperParameterTuningEndTime"] = now
        self.set_fields(HyperParameterTuningJobStatus=status, LastModifiedTime=now, **fields)


def proposals(config: Json) -> Iterator[dict[str, str]]:
    """Yield what each trial is to try: for Grid every combination once, otherwise without end."""
    ranges = config.get("ParameterRanges", {})
    choices = {one["Name"]: one["Values"] for one in ranges.get("CategoricalParameterRanges", [])}
    if config["Strategy"] == "Grid":
        yield from (dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values()))
        return
    draw = random.Random(config.get("RandomSeed"))  # noqa: S311 - it chooses, it does not hide
    while True:
        found = {name: draw.choice(values) for name, values in choices.items()}
        found |= {one["Name"]: str(round(_drawn(draw, one))) for one in ranges.get("IntegerParameterRanges", [])}
        found |= {one["Name"]: repr(_drawn(draw, one)) for one in ranges.get("ContinuousParameterRanges", [])}
        yield found


def _drawn(draw: random.Random, one: Json) -> float:
    low, high = float(one["MinValue"]), float(one["MaxValue"])
    if one.get("ScalingType") == "Logarithmic":
        return min(high, max(low, math.exp(draw.uniform(math.log(low), math.log(high)))))
    return draw.uniform(low, high)


def _hopeless(trials: list[Json], least: int = HOPELESS) -> str:
    """Return why a search fails when *least* trials and all that are over have no value, if so."""
    over = [one for one in trials if one["ObjectiveStatus"] != "Pending"]
    if len(over) < least or any(one["ObjectiveStatus"] == "Succeeded" for one in over):
        return ""
    if any(one["TrainingJobStatus"] == "Completed" for one in over):
        return f"No objective metrics found after running {len(over)} training jobs. Please ensure that it is emitted."
    return f"No training job succeeded after {len(over)} attempts. Please take a look at the training job failures."


def _running(trials: list[Json]) -> list[Json]:
    return [one for one in trials if one["TrainingJobStatus"] not in OVER]


def _value(trial: Json) -> float:
    return float(trial["FinalHyperParameterTuningJobObjectiveMetric"]["Value"])


def _counted(trials: list[Json]) -> Json:
    words = [one["TrainingJobStatus"] for one in trials]
    known = {"Completed": "Completed", "Stopped": "Stopped", "NonRetryableError": "Failed"}
    return {key: words.count(word) for key, word in known.items()} | {"InProgress": len(_running(trials))}


def _objectives(trials: list[Json]) -> Json:
    words = [one["ObjectiveStatus"] for one in trials]
    return {word: words.count(word) for word in ("Succeeded", "Pending", "Failed")}
