"""What every tuning backend must do: one suite for ours and for strangers'.

Subclass :class:`TuningBackendContract` in a test module and give it a ``backend`` fixture. Trials leave traces in a
folder of this machine, so it is for platforms whose jobs run here, such as strict fakes. It needs no Airflow.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.errors import ConflictError, InvalidSpecError
from airflow_mlops.testing.job_backend import OWNER, JobBackendContract
from airflow_mlops.training.contract import FailureReason, JobHandle, JobState, TrainingSpec
from airflow_mlops.training.search_space import fits, read_space
from airflow_mlops.training.tuning.contract import TuningBackend, TuningResult, TuningSpec

SPACE: dict[str, Any] = {"x": {"low": 1, "high": 90, "type": "int"}}
TYPES: dict[str, Any] = {
    **SPACE,
    "rate": {"low": 0.0001, "high": 0.1, "log": True},
    "size": {"low": -1.5, "high": 1.5},
    "loss": {"choices": ["squared", "abs/olute"]},
}
READ = 'all="$*"; while [ $# -gt 0 ] && [ "$1" != --x ]; do shift; done; x=$2\n'
REPORT = 'printf \'{"metrics": {"loss": 1.5, "score": %s}, "model_uri": "%s"}\' "$x" "$all" > "$MLOPS_OUTPUT"'
"""The score is the value of ``x``; the name of the model is what the program was started with."""


class TuningBackendContract(JobBackendContract):
    """The promises of :class:`~airflow_mlops.training.tuning.contract.TuningBackend`. Override what is different."""

    refused: Mapping[str, Any] = {}
    """Parameter -> what it may be, for every kind of range that the platform cannot honour."""

    def training(self, script: str, **fields: Any) -> TrainingSpec:
        """Return what a trial runs."""
        return TrainingSpec(("sh", "-c", script, "job"), **fields)

    def spec(self, script: str, *, parameters: Mapping[str, Any] | None = None, **fields: Any) -> TuningSpec:
        """Return a search of two trials which run a shell script, with their ``x`` as a variable, and then report."""
        training = self.training(f"{READ}{script}\n{REPORT}", parameters=parameters or {})
        small: dict[str, Any] = {"space": SPACE, "metric": "score", "max_trials": 2, "parallel_trials": 2}
        return TuningSpec(training, **{**small, **fields})

    def searched(self, backend: TuningBackend, name: str, spec: TuningSpec) -> TuningResult:
        """Run a search to its good end and return its result."""
        handle = backend.submit(spec, name=name, owner=OWNER)
        status = self.wait_for(backend, handle, lambda found: found.state.terminal)
        assert status.state is JobState.SUCCEEDED, status
        return backend.collect(handle)

    def test_it_keeps_the_protocol(self, backend: TuningBackend) -> None:
        """A backend has all verbs and its name."""
        assert isinstance(backend, TuningBackend)
        assert backend.name

    @pytest.mark.parametrize(("direction", "choose"), [("maximize", max), ("minimize", min)])
    def test_the_best_trial_is_found(self, backend: TuningBackend, name: str, direction: str, choose: Any) -> None:
        """The best is the trial with the highest or lowest value, and its result is what its program reported."""
        found = self.searched(backend, name, self.spec("true", direction=direction, max_trials=4))
        assert len(found.trials) == 4
        assert all(trial.value == trial.parameters["x"] for trial in found.trials)
        best = choose(trial.value for trial in found.trials)
        assert found.parameters == {"x": best}
        assert found.best.metrics == {"score": best, "loss": 1.5}
        assert found.best.model_uri == f"--x {best:.0f}"
        assert len({trial.trial_id for trial in found.trials}) == 4

    def test_values_keep_their_types(self, backend: TuningBackend, name: str) -> None:
        """The program gets fixed and searched parameters as flags, and they come back as the space has them."""
        spec = self.spec("true", space=TYPES, parameters={"epochs": 3, "note": "a b"})
        found = self.searched(backend, name, spec)
        space = read_space(TYPES)
        assert all(set(trial.parameters) == set(space) and fits(space, trial.parameters) for trial in found.trials)
        fixed = {"epochs": 3, "note": "a b"}
        assert {key: found.parameters[key] for key in fixed} == fixed
        assert set(found.parameters) == {*fixed, *space}
        flags = dict(flag.split(" ", 1) for flag in f" {found.best.model_uri}".split(" --")[1:])
        assert set(flags) == set(found.parameters)
        assert (flags["note"], flags["loss"], flags["x"]) == (
            "a b",
            found.parameters["loss"],
            f"{found.parameters['x']}",
        )
        assert [float(flags[key]) for key in ("rate", "size")] == [found.parameters[key] for key in ("rate", "size")]

    def test_a_failed_trial_is_survived(self, backend: TuningBackend, name: str, tmp_path: Path) -> None:
        """A trial that fails has no value; the best of the others is the result."""
        script = f'mkdir "{tmp_path}/first" 2>/dev/null && exit 3'
        found = self.searched(backend, name, self.spec(script, max_trials=3, parallel_trials=1))
        values = [trial.value for trial in found.trials if trial.value is not None]
        assert len(values) == len(found.trials) - 1 > 0
        assert found.parameters["x"] == max(values)

    def test_a_search_without_any_value_fails(self, backend: TuningBackend, name: str) -> None:
        """When all trials fail the search does, by the program's fault, and nothing can be collected."""
        handle, status = self.ended(backend, name, "exit 7")
        assert status.state is JobState.FAILED
        assert status.reason in {FailureReason.USER_CODE, FailureReason.NONE}
        with pytest.raises(InvalidSpecError, match=name):
            backend.collect(handle)

    def test_a_search_whose_programs_report_nothing_fails(self, backend: TuningBackend, name: str) -> None:
        """Programs that end well without the metric are no success, and the status names the metric."""
        handle, status = self.ended(backend, name, "exit 0")
        assert (status.state, "score" in status.detail) == (JobState.FAILED, True), status
        with pytest.raises(InvalidSpecError, match=name):
            backend.collect(handle)

    def test_cancelling_stops_all_trials(self, backend: TuningBackend, name: str, tmp_path: Path) -> None:
        """When a search is cancelled, none of its programs goes on."""
        spec = self.spec(f'echo $$ > "{tmp_path}/$$"; sleep 60')
        handle = backend.submit(spec, name=name, owner=OWNER)
        self._wait(lambda: len(list(tmp_path.iterdir())) == 2)
        backend.cancel(handle)
        self.wait_for(backend, handle, lambda found: found.state is JobState.CANCELLED)
        self._wait(lambda: not any(_is_alive(int(file.name)) for file in tmp_path.iterdir()))

    def test_the_limits_are_kept(self, backend: TuningBackend, name: str, tmp_path: Path) -> None:
        """There are no more trials than allowed, in all and at the same time."""
        script = (
            f'cd "{tmp_path}"; touch now.$$; ls | grep -c now > most.$$; sleep 0.5; '
            "ls | grep -c now >> most.$$; rm now.$$"
        )
        found = self.searched(backend, name, self.spec(script, max_trials=4, parallel_trials=2))
        seen = [file.read_text().split() for file in tmp_path.glob("most.*")]
        assert len(seen) == len(found.trials) == 4
        assert max(int(count) for counts in seen for count in counts) <= 2

    def test_what_cannot_be_searched_is_refused_by_name(self, backend: TuningBackend, name: str) -> None:
        """A range that the platform does not have is refused with the parameter's name before anything is made."""
        for parameter, entry in self.refused.items():
            with pytest.raises(InvalidSpecError, match=f"'{parameter}'"):
                backend.submit(self.spec("true", space={**SPACE, parameter: entry}), name=name, owner=OWNER)
            assert backend.locate(name) is None

    def test_another_search_of_the_name_is_a_conflict(
        self, backend: TuningBackend, sleeper: JobHandle, name: str
    ) -> None:
        """What is searched is part of a search's identity."""
        for other in ({"max_trials": 3}, {"direction": "minimize"}, {"space": TYPES}):
            with pytest.raises(ConflictError, match=name):
                backend.submit(self.spec("sleep 60", **other), name=name, owner=OWNER)
        assert backend.observe([sleeper])[sleeper].state is JobState.RUNNING

    def _wait(self, done: Any) -> None:
        end = time.monotonic() + self.limit
        while not done():
            assert time.monotonic() < end
            time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
