"""Kill -9 at eight points of a task's life, on every backend, blocking and deferred: one job, and its whole result.

Each cell runs the real task runner in worker processes and the trigger in triggerer processes. What Airflow knows
(state store, XComs, states) is in this process and outlives them, as Airflow's own server does. One process of each
cell gets a SIGKILL; Airflow then does what it does: the next try in a new worker, or the same trigger in a new
triggerer.

Where the process dies: a *verb* is a call of the backend, which kills its own process (``mortal_backends.py``,
installed as a stranger's plugin); a *request* is one to the Execution API, which kills the worker that asks, before it
keeps the request or after it, and never answers. The names in brackets are those of blocking tasks.

| point                    | where                                                                                |
| ------------------------ | ------------------------------------------------------------------------------------ |
| before-submit            | verb: submit is called, nothing is sent; the record says "intent"                    |
| after-submit             | verb: submit has returned; the record still says "intent"                            |
| polling                  | verb: the second look of the worker begins                                           |
| before-defer             | request: PATCH of the state "deferred", before it is kept                            |
| (recorded)               | request: PUT of the record "submitted", after it is kept, before the wait begins     |
| in-trigger               | verb: the triggerer has looked at the job once, and it goes on                       |
| (asleep)                 | verb: a moment after the second look, while the worker sleeps                        |
| on-event                 | request: PATCH run, for a task that resumes with the trigger's event, after it       |
| (job-ended)              | verb: a look has returned that the job is over                                       |
| before-result            | request: POST of the XCom return_value, before it is kept                            |
| after-result             | request: PATCH of the state "success", before it is kept: the XCom is, the end is not |
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kill_cells import Cell, Point
from kill_platforms import PLATFORMS

from airflow_mlops.core.entrypoints import TRAINING_BACKENDS

AT_ONCE = 8
"""Cells that run at the same time. A deferred one mostly waits: the trigger's first look comes after five seconds."""

DEFERRED, BLOCKING = ("deferred",), ("blocking",)
POINTS = {
    "before-submit": Point(verb="submit:before:1", at_death=(0, "intent", False)),
    "after-submit": Point(verb="submit:after:1", at_death=(1, "intent", False)),
    "polling": Point(verb="observe:before:2"),
    "before-defer": Point(DEFERRED, request="deferred"),
    "recorded": Point(BLOCKING, request="recorded", kept=True),
    "in-trigger": Point(DEFERRED, verb="observe:after:1", victim="triggerer"),
    "asleep": Point(BLOCKING, verb="observe:asleep:2"),
    "on-event": Point(DEFERRED, request="resumed", kept=True),
    "job-ended": Point(BLOCKING, verb="observe:ended"),
    "before-result": Point(request="result"),
    "after-result": Point(request="success", at_death=(1, "submitted", True)),
}
CELLS = [
    (backend, mode, name)
    for backend in PLATFORMS
    for mode in ("deferred", "blocking")
    for name, point in POINTS.items()
    if mode in point.modes
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Install the backends that kill their process, as an installer would: metadata with entry points."""
    info = tmp_path_factory.mktemp("site") / "mortal_backends-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mortal-backends\nVersion: 1\n")
    lines = [f"mortal-{name} = mortal_backends:Mortal{name.capitalize()}" for name in PLATFORMS]
    (info / "entry_points.txt").write_text("\n".join([f"[{TRAINING_BACKENDS}]", *lines]))
    with pytest.MonkeyPatch.context() as path:
        path.syspath_prepend(str(info.parent))
        yield


@pytest.fixture(scope="module")
def cells(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, mlflow_server: str, installed: None
) -> Iterator[dict[tuple[str, str, str], Future[Cell]]]:
    """Start all cells that were asked for: several at once, because each of them mostly waits."""
    folder = tmp_path_factory.mktemp("kill_points")
    asked = [item.callspec.params["cell"] for item in request.session.items if item.path == Path(__file__)]
    with ExitStack() as stack:
        platforms = {name: stack.enter_context(PLATFORMS[name](folder)) for name in {cell[0] for cell in asked}}
        pool = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
        stack.callback(pool.shutdown, cancel_futures=True)

        def live(backend: str, mode: str, point: str) -> Cell:
            name = f"{backend}-{mode}-{point}"
            return Cell(platforms[backend], backend, mode, POINTS[point], name, folder / name, mlflow_server).live()

        yield {cell: pool.submit(live, *cell) for cell in asked}


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_killed_there_one_job_and_its_whole_result(cell: tuple[str, str, str], cells: Any) -> None:
    """Whoever is killed, and when: the platform has one job, one process of it ran, and the task has its result."""
    lived: Cell = cells[cell].result(timeout=200)
    assert lived.deaths == [(lived.point.victim, lived.point.at_death)]
    assert lived.api.final.get("state") == "success", lived.log()
    assert lived.platform.jobs(lived.name) == 1
    marks = (lived.folder / "marks").read_text()
    assert re.fullmatch(r"\d+\n", marks), marks
    assert lived.result is not None
    assert lived.tracked() == [(lived.result["run_id"], "FINISHED")]
    assert lived.result["model_uri"] == "models:/m-1"
    assert lived.result["metrics"] == {"auc": 0.75, "loss": 0.5}
