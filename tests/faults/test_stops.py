"""However a task is stopped, its job is stopped on the platform; and what is no stop stops nothing.

All cells of one world are played at once on one real Airflow, with real workers and triggerers that are really killed.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from stop_platforms import (
    ACTIVE,
    STOPPED,
    SUCCEEDED,
    Platform,
    azureml,
    kubeflow,
    kubernetes,
    local,
    sagemaker,
    vertex,
)
from stop_play import (
    Cell,
    Event,
    clear_task,
    fail_run,
    fail_task,
    kill_worker,
    look,
    over,
    play,
    start,
    start_run,
    struck,
    terminate_worker,
    trigger_log,
    waits_under,
    write_cells,
)

from airflow_mlops.testing.airflow_stack import AirflowStack, airflow_stack
from airflow_mlops.testing.azureml import azureml_fake
from airflow_mlops.testing.kubernetes import kubernetes_fake
from airflow_mlops.testing.kubernetes.trainer import TRAINER_KINDS
from airflow_mlops.testing.sagemaker import sagemaker_fake
from airflow_mlops.testing.vertex import vertex_fake

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PLATFORMS = ("local", "kubernetes", "kubeflow", "sagemaker", "vertex", "azureml")
PRELOAD = (
    "airflow_mlops.operators.training",
    "airflow_mlops.operators.janitor",
    "boto3",
    "google.cloud.aiplatform_v1.services.job_service",
    "kubernetes.client",
)
"""Imported once for all tasks: a limit of seconds must not be used up by imports."""

BLOCKING = {"deferrable": False}
STRIKES = (
    Event("task-failed", fail_task),
    Event("task-failed-blocking", fail_task, BLOCKING),
    Event("run-failed", fail_run),
    Event("worker-sigterm-blocking", terminate_worker, BLOCKING),
)
LIMITS = (
    Event("dagrun-timeout", times={"dagrun_timeout": 45}),
    Event("execution-timeout", times={"execution_timeout": 25}),
    Event("execution-timeout-blocking", arguments=BLOCKING, times={"execution_timeout": 25}),
)
"""Played when the rush is over: a limit must not pass before the job runs."""
ALONE = (Event("deferral-timeout", arguments={"deadline_margin": 0}, times={"execution_timeout": 12}, alone=True),)
"""Played while no triggerer lives, so that nobody but Airflow's own limit of a deferral can wake the task."""
STOPS = (*STRIKES, *LIMITS, *ALONE)
CLEARS = (Event("task-cleared", clear_task), Event("task-cleared-blocking", clear_task, BLOCKING))
ORPHAN = Event("worker-sigkill-blocking", kill_worker, BLOCKING, orphans=True)
"""A machine is lost with the last try: only the janitor is left to stop the job."""
SURVIVOR = Event("survivor")
SHOCKS = ("triggerer-killed", "triggerer-handed-over", "triggerer-sigterm")


class Play:
    """The cells after the play, and what was seen of the survivors after each shock."""

    def __init__(self, folder: Path, platforms: list[Platform]) -> None:
        self.cells = {
            (event.name, platform.name): Cell(event, platform, folder / "cells" / f"{event.name}-{platform.name}")
            for event in (*STOPS, *CLEARS, ORPHAN, SURVIVOR)
            for platform in platforms
        }
        self.survived: dict[tuple[str, str], list[str]] = {}
        self.results: dict[str, object] = {}
        self.orphans: dict[str, list[str]] = {}
        self.swept: dict[str, object] = {}

    def of(self, *events: Event) -> list[Cell]:
        """Return the cells of some events."""
        return [cell for cell in self.cells.values() if cell.event in events]

    def run(self, stack: AirflowStack) -> None:
        """Play everything."""
        stack.wait_for_dags({cell.dag_id for cell in self.cells.values()})
        rush, limits = self.of(*STRIKES, *CLEARS, ORPHAN), self.of(*LIMITS)
        start(stack, [*rush, *self.of(SURVIVOR)])
        play(stack, rush, until=struck)
        start(stack, limits)
        play(stack, [*rush, *limits], until=over)
        jobs = look(stack, self.of(ORPHAN))
        self.orphans = {cell.platform.name: [job.state for job in jobs[cell.dag_id]] for cell in self.of(ORPHAN)}
        sweep = start_run(stack, "janitor")
        self.shock(stack)
        self.swept = self.result(stack, f"dags/janitor/dagRuns/{sweep}", "sweep")
        self.release(stack)
        jobs = look(stack, self.cells.values())
        for cell in self.cells.values():
            cell.after = jobs[cell.dag_id]

    def shock(self, stack: AirflowStack) -> None:
        """Kill one triggerer, let a second one be taken over by a third, end that one in peace."""
        stack.parts["triggerer"].signal(signal.SIGKILL)
        start(stack, self.of(*ALONE))
        play(stack, self.of(*ALONE), until=over)

        found = dict([stack.start_triggerer("triggerer-2"), stack.start_triggerer("triggerer-3")])
        holder = self.note("triggerer-killed", stack, found)
        found[holder].signal_all(signal.SIGSTOP)
        heir = self.note("triggerer-handed-over", stack, found.keys() - {holder})
        found[holder].signal_all(signal.SIGCONT)
        stack.wait("it to let go", lambda: all(_let_go(stack, cell, holder) for cell in self.of(SURVIVOR)))
        self.note("triggerer-handed-over", stack, {heir})

        found[heir].signal(signal.SIGTERM)
        found[heir].process.wait(30)
        self.note("triggerer-sigterm", stack, {holder})

    def note(self, shock: str, stack: AirflowStack, candidates: Collection[int]) -> int:
        """Wait until one of *candidates* waits for all survivors, note how their jobs are, and return its id."""
        survivors, found = self.of(SURVIVOR), set[int]()

        def settled() -> bool:
            jobs = look(stack, survivors)
            for cell in survivors:
                self.survived[shock, cell.platform.name] = [job.state for job in jobs[cell.dag_id]]
            waits = (each for each in candidates if all(waits_under(stack, cell, each) for cell in survivors))
            found.update(waits)
            return bool(found)

        stack.wait(f"the next triggerer after {shock}", settled, 60)
        return found.pop()

    def release(self, stack: AirflowStack) -> None:
        """Let the survivors' jobs end, and take what their tasks return."""
        for cell in self.of(SURVIVOR):
            (cell.folder / "go").touch()
        for cell in self.of(SURVIVOR):
            self.results[cell.platform.name] = self.result(stack, cell.path, "train")

    def result(self, stack: AirflowStack, run: str, task_id: str) -> Any:
        """Wait until a task has succeeded and return what it returned."""
        task = f"{run}/taskInstances/{task_id}"
        stack.wait(task, lambda: stack.api.get(task)["state"] == "success", 60)
        return stack.api.get(f"{task}/xcomEntries/return_value", stringify=False)["value"]


def _let_go(stack: AirflowStack, cell: Cell, triggerer: int) -> bool:
    """Return whether the cell's trigger was told to end and has decided what that means for the job."""
    log = trigger_log(stack, cell, triggerer)
    return "goes on" in log or "is cancelled" in log


@contextmanager
def on_premises(folder: Path) -> Iterator[list[Platform]]:
    """Give this machine and a cluster."""
    with kubernetes_fake(*TRAINER_KINDS) as cluster:
        yield [local(folder / "local"), kubernetes(cluster), kubeflow(cluster)]


@contextmanager
def clouds(folder: Path) -> Iterator[list[Platform]]:
    """Give an account, a project and a workspace."""
    with sagemaker_fake() as account, vertex_fake() as project, azureml_fake() as workspace:
        yield [sagemaker(account), vertex(project), azureml(workspace)]


WORLDS: dict[Callable[[Path], AbstractContextManager[list[Platform]]], tuple[str, ...]] = {
    on_premises: PLATFORMS[:3],
    clouds: PLATFORMS[3:],
}
"""What is played together, and the platforms in it."""


@contextmanager
def played_on(world: Callable[[Path], AbstractContextManager[list[Platform]]], folder: Path) -> Iterator[Play]:
    """Give the play of one world after its end; the platforms are still there."""
    with world(folder) as platforms:
        found = Play(folder, platforms)
        env = write_cells(folder / "airflow", found.cells.values())
        try:
            with airflow_stack(folder / "airflow", env=env, parallelism=24, preload=PRELOAD) as stack:
                found.run(stack)
            yield found
        finally:
            for cell in found.cells.values():
                (cell.folder / "go").touch()


@pytest.fixture(scope="module")
def plays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Play]]:
    """Give the play that a platform is in: each world is played once, when it is first asked for."""
    known: dict[Any, Play | Exception] = {}
    with ExitStack() as open_worlds:

        def of(platform: str) -> Play:
            world = next(world for world, platforms in WORLDS.items() if platform in platforms)
            if world not in known:
                try:
                    known[world] = open_worlds.enter_context(played_on(world, tmp_path_factory.mktemp("stops")))
                except Exception as error:  # noqa: BLE001 - every test of this world raises it
                    known[world] = error
            if isinstance(found := known[world], Exception):
                raise RuntimeError("The play broke.") from found
            return found

        yield of


@pytest.fixture
def played(platform: str, plays: Callable[[str], Play]) -> Play:
    """Give the play that this platform is in."""
    return plays(platform)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("event", [event.name for event in STOPS])
def test_a_stopped_task_leaves_no_job(event: str, platform: str, played: Play) -> None:
    """The one job ran, was stopped by the event and is over on the platform, and no process of it is left."""
    cell = played.cells[event, platform]
    assert [job.state for job in cell.before] == [ACTIVE]
    assert [(job.name, job.state) for job in cell.after] == [(cell.before[0].name, STOPPED)]
    assert cell.processes() == []
    assert cell.task["state"] == ("skipped" if event == "dagrun-timeout" else "failed")


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("event", [event.name for event in CLEARS])
def test_a_cleared_task_has_one_new_job(event: str, platform: str, played: Play) -> None:
    """The old job was stopped; exactly one new one was started and succeeded."""
    cell = played.cells[event, platform]
    old = [job.name for job in cell.before]
    assert sorted(job.state for job in cell.after) == [STOPPED, SUCCEEDED]
    assert [job.name for job in cell.after if job.state == STOPPED] == old
    assert cell.processes() == []
    assert cell.task["state"] == "success"


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("shock", SHOCKS)
def test_a_job_outlives_its_triggerer(shock: str, platform: str, played: Play) -> None:
    """Whatever happens to a triggerer, the next one goes on waiting for the same running job."""
    assert played.survived[shock, platform] == [ACTIVE]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_result_arrives_after_all_that(platform: str, played: Play) -> None:
    """The one job that three triggerers waited for brings its result."""
    cell = played.cells[SURVIVOR.name, platform]
    assert [job.state for job in cell.after] == [SUCCEEDED]
    assert played.results[platform]["metrics"] == {"kept": 1}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_lost_worker_leaves_its_job_to_the_janitor(platform: str, played: Play) -> None:
    """A worker that is lost with the last try leaves a running job; the janitor stops it, and no other."""
    cell = played.cells[ORPHAN.name, platform]
    assert played.orphans[platform] == [ACTIVE]
    assert [(job.name, job.state) for job in cell.after] == [(cell.before[0].name, STOPPED)]
    assert cell.processes() == []
    assert cell.task["state"] == "failed"
    swept = [each["owner"]["dag_id"] for each in played.swept["cancelled"]]
    assert sorted(swept) == sorted(each.dag_id for each in played.of(ORPHAN))
