"""One HyperparameterTuningJob at work: trials, each a CustomJob, as many at once as it may have.

Parameters are drawn at random, the same for the same job id, or in the order of a grid; nothing is learned. A trial's
last measurement is its final one. With ``maxFailedTrialCount`` 0 a failure before any success ends the search, which is
a guess at what the service decides then; so are the words of a failed search's error, and that trials inherit labels.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import threading
from pathlib import Path
from typing import Any

from airflow_mlops.testing.vertex.custom_run import (
    CANCELLED,
    CANCELLING,
    FAILED,
    PENDING,
    RUNNING,
    SUCCEEDED,
    CustomRun,
    Surroundings,
)
from airflow_mlops.testing.vertex.schema import message_class
from airflow_mlops.testing.vertex.store import Entry, Store
from airflow_mlops.testing.vertex.tuning_rules import GRID_SEARCH, LOG

ACTIVE, TRIAL_SUCCEEDED, INFEASIBLE = 2, 4, 5


class TrialRun(CustomRun):
    """The CustomJob of a trial. Only what its first node measures counts."""

    trial = ""
    metric = ""
    metric_file = Path()

    def _environment(self, spec: Any, folder: Path) -> dict[str, str]:
        own = folder / "hypertune" / "output.metrics"
        if folder.name.endswith("-0-0"):
            self.metric_file = own
        told = {"CLOUD_ML_TRIAL_ID": self.trial, "CLOUD_ML_HP_METRIC_TAG": self.metric}
        return {**super()._environment(spec, folder), **told, "CLOUD_ML_HP_METRIC_FILE": str(own)}

    def measurements(self) -> list[tuple[int, float]]:
        """Return steps and values that the program wrote, in the order of the steps."""
        lines = self.metric_file.read_text().splitlines() if self.metric_file.is_file() else []
        found = [json.loads(line) for line in lines]
        known = [(int(each["global_step"]), float(each[self.metric])) for each in found if self.metric in each]
        return sorted(known, key=lambda each: each[0])


class TuningRun:
    """Runs a search in a thread of its own, and each trial in one more."""

    def __init__(self, store: Store, entry: Entry, around: Surroundings) -> None:
        self._store, self._entry, self._around = store, entry, around
        self._changed = threading.Condition(store.lock)
        self._is_cancelled = self._is_over_time = False
        self._runs: list[TrialRun] = []
        self._failures: list[str] = []
        self._successes = 0
        self._thread = threading.Thread(target=self._go, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._set(PENDING)
        self._thread.start()

    def cancel(self) -> None:
        """Order the end of the search and of its trials."""
        with self._changed:
            if self._entry.message.state < SUCCEEDED:
                self._set(CANCELLING)
            self._is_cancelled = True
            self._changed.notify_all()
            for run in self._runs:
                run.cancel()

    def stop(self) -> None:
        """End it now and wait for that."""
        self._around.stop_seconds = 0
        self.cancel()
        self._thread.join(10)

    def _go(self) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._is_cancelled, self._around.pending_seconds):
                self._set(RUNNING)
        threads = self._trials()
        with self._changed:
            if self._is_over_time or self._has_failed():
                for run in self._runs:
                    run.cancel()
        for thread in threads:
            thread.join()
        self._store.change(self._entry, self._ended)

    def _trials(self) -> list[threading.Thread]:
        """Start trials until there are enough, or the search is to end."""
        job, threads = self._entry.message, []
        longest = job.study_spec.study_stopping_config.maximum_runtime_constraint.max_duration
        allowed = longest.ToNanoseconds() / 1e9 or None
        timer = threading.Timer(allowed or 0, self._out_of_time)
        if allowed:
            timer.daemon = True
            timer.start()
        with self._changed:
            for parameters in itertools.islice(suggestions(job.study_spec, self._entry.job_id), job.max_trial_count):
                self._changed.wait_for(lambda: self._is_ending() or self._running() < job.parallel_trial_count)
                if self._is_ending():
                    break
                threads.append(threading.Thread(target=self._try, args=self._begin(parameters), daemon=True))
                threads[-1].start()
            self._changed.wait_for(lambda: self._is_ending() or not self._running())
        timer.cancel()
        return threads

    def _begin(self, parameters: dict[str, Any]) -> tuple[TrialRun, Any]:
        """Make a trial and its CustomJob."""
        number = str(len(self._runs) + 1)
        trial = self._entry.message.trials.add(id=number, state=ACTIVE)
        trial.name = f"{self._entry.message.name}/trials/{number}"
        for name, value in parameters.items():
            told = trial.parameters.add(parameter_id=name).value
            setattr(told, "string_value" if isinstance(value, str) else "number_value", value)
        trial.start_time.GetCurrentTime()
        entry = self._custom_job(number, parameters)
        run = entry.run = TrialRun(self._store, entry, self._around)
        run.trial, run.metric = number, self._entry.message.study_spec.metrics[0].metric_id
        trial.custom_job = entry.message.name
        self._runs.append(run)
        return run, trial

    def _custom_job(self, number: str, parameters: dict[str, Any]) -> Entry:
        job = message_class("CustomJob").pb()()
        job.display_name = f"{self._entry.message.display_name[:100]}-trial-{number}"
        job.job_spec.CopyFrom(self._entry.message.trial_job_spec)
        base = job.job_spec.base_output_directory
        base.output_uri_prefix = base.output_uri_prefix and f"{base.output_uri_prefix.rstrip('/')}/{number}"
        for pool in job.job_spec.worker_pool_specs:
            pool.container_spec.args.extend(f"--{name}={value}" for name, value in parameters.items())
        for key, value in self._entry.message.labels.items():
            job.labels[key] = value
        return self._store.add(self._entry.project, self._entry.region, "customJobs", job)

    def _try(self, run: TrialRun, trial: Any) -> None:
        """Run one trial and note what it measured."""
        run.start()
        if self._is_cancelled:
            run.cancel()
        job = run.wait()
        measured = run.measurements() if job.state == SUCCEEDED else []
        with self._changed:
            trial.state = TRIAL_SUCCEEDED if measured else INFEASIBLE
            trial.end_time.GetCurrentTime()
            if measured:
                trial.final_measurement.step_count = measured[-1][0]
                trial.final_measurement.metrics.add(metric_id=run.metric, value=measured[-1][1])
                self._successes += 1
            else:
                trial.infeasible_reason = job.error.message or "The trial is done but has no final measurement."
                self._failures.append(f"Trial {trial.id}: {trial.infeasible_reason}")
            self._changed.notify_all()

    def _out_of_time(self) -> None:
        with self._changed:
            self._is_over_time = True
            self._changed.notify_all()

    def _running(self) -> int:
        return sum(trial.state == ACTIVE for trial in self._entry.message.trials)

    def _is_ending(self) -> bool:
        return self._is_cancelled or self._is_over_time or self._has_failed()

    def _has_failed(self) -> bool:
        allowed = self._entry.message.max_failed_trial_count
        return len(self._failures) >= allowed if allowed else bool(self._failures and not self._successes)

    def _ended(self, job: Any) -> None:
        if self._is_cancelled:
            job.state, job.error.code, job.error.message = CANCELLED, 1, "CANCELED"
        elif self._has_failed():
            job.state, job.error.code = FAILED, 3
            job.error.message = f"Too many trials failed. {' '.join(self._failures)}"
        else:
            job.state = SUCCEEDED
        job.end_time.GetCurrentTime()

    def _set(self, state: int) -> None:
        def change(job: Any) -> None:
            if job.state != CANCELLING:
                job.state = state
            if state == RUNNING:
                job.start_time.GetCurrentTime()

        self._store.change(self._entry, change)


def suggestions(study: Any, seed: str) -> Any:
    """Yield parameter sets without end, or all of a grid once."""
    names = [parameter.parameter_id for parameter in study.parameters]
    if study.algorithm == GRID_SEARCH:
        rows = itertools.product(*map(_all, study.parameters))
        return (dict(zip(names, row, strict=True)) for row in rows)
    chance = random.Random(seed)  # noqa: S311 - a search
    return ({each.parameter_id: _drawn(each, chance) for each in study.parameters} for _ in itertools.count())


def _all(parameter: Any) -> list[Any]:
    if parameter.WhichOneof("parameter_value_spec") == "integer_value_spec":
        spec = parameter.integer_value_spec
        return list(range(spec.min_value, spec.max_value + 1))
    return list(getattr(parameter, parameter.WhichOneof("parameter_value_spec")).values)


def _drawn(parameter: Any, chance: random.Random) -> Any:
    kind = parameter.WhichOneof("parameter_value_spec")
    spec = getattr(parameter, kind)
    if kind in ("categorical_value_spec", "discrete_value_spec"):
        return chance.choice(list(spec.values))
    low, high = spec.min_value, spec.max_value
    is_log = parameter.scale_type == LOG
    found = math.exp(chance.uniform(math.log(low), math.log(high))) if is_log else chance.uniform(low, high)
    found = min(max(found, low), high)
    return round(found) if kind == "integer_value_spec" else found
