"""How a side is measured: a platform in one process, 1,000 triggers in another, and a pipe between the two.

A platform is a module with three functions: ``serve(pipe)`` runs the fake until it is told to stop, ``ours(job_id)``
and ``theirs(job_id)`` make a trigger.
"""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

JOBS, ENDING, INTERVAL, GIVE_UP = 1000, 100, 10.0, 60.0
CLOUDS = {"sagemaker": "SageMaker", "vertex": "Vertex AI"}
CONNECTION = "platform"
"""Id of the Airflow connection by which both sides reach the platform."""

STARTED = {"ours": 1, "theirs": JOBS}
"""How many calls to a cloud say that all triggers wait: an official trigger asks once when it begins."""

START_SECONDS = 600


@dataclass(frozen=True)
class Scene:
    """What is there before the triggers come.

    :param ids: of the jobs
    :param environment: variables of the process in which the triggers wait
    """

    ids: tuple[str, ...]
    environment: dict[str, str]


def obey(pipe: Connection, calls: Callable[[], int], end: Callable[[int], None] | None = None) -> None:
    """Count calls, and end jobs by number, until it is told to stop."""
    while (asked := pipe.recv()) != "stop":
        if asked == "calls":
            pipe.send(calls())
        elif end is not None:
            end(asked)
            pipe.send(time.time())


def resident() -> int:
    """Return this process's memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Side:
    """One side: all triggers in this process, and the pipe to the platform."""

    def __init__(self, make: Callable[[str], Any], ids: tuple[str, ...], pipe: Connection) -> None:
        self._make, self._ids, self._pipe = make, ids, pipe
        self._ended: dict[int, float] = {}

    async def _wait(self, number: int) -> None:
        async for _ in self._make(self._ids[number]).run():
            self._ended[number] = time.time()
            return

    async def _ask(self, what: object) -> Any:
        self._pipe.send(what)
        return await asyncio.to_thread(self._pipe.recv)

    async def measure(self, seconds: float, started: int, *, ends: bool) -> dict[str, Any]:
        """Wait for all jobs, first while nothing happens, then while some of them end, if they are to."""
        before = resident()
        waiting = [asyncio.ensure_future(self._wait(number)) for number in range(JOBS)]
        await self._settle(started)
        found = await self._idle(seconds)
        found["memory"] = (resident() - before) / JOBS
        found |= await self._ends(waiting) if ends else {}
        gone = [task for task in waiting if task.done()]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        if gone and not ends:
            raise RuntimeError(f"{len(gone)} triggers did not wait: {gone[0]}")
        return found

    async def _settle(self, started: int) -> None:
        """Wait until all triggers wait."""
        for _ in range(START_SECONDS):
            if not started or await self._ask("calls") >= started:
                break
            await asyncio.sleep(1)
        else:
            raise TimeoutError(f"Not all triggers began to wait within {START_SECONDS} s.")
        await asyncio.sleep(2 * INTERVAL)

    async def _idle(self, seconds: float) -> dict[str, Any]:
        calls, cpu, begun = await self._ask("calls"), time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        took, cpu = time.monotonic() - begun, time.process_time() - cpu
        return {"calls": (await self._ask("calls") - calls) / took * 60, "cpu": cpu / took}

    async def _ends(self, waiting: list[asyncio.Future[None]]) -> dict[str, Any]:
        told = {}
        for number in range(ENDING):
            told[number] = await self._ask(number)
            await asyncio.sleep(0.1)
        await asyncio.wait(waiting[:ENDING], timeout=GIVE_UP)
        latencies = sorted(self._ended.get(number, float("inf")) - moment for number, moment in told.items())
        return {"latency": latencies[int(ENDING * 0.99) - 1], "seen": len(self._ended)}


def _serve(platform: str, pipe: Connection) -> None:
    importlib.import_module(f"benchmarks.jobs.{platform}").serve(pipe)


def _side(platform: str, name: str, scene: Scene, seconds: float, pipes: tuple[Connection, Connection]) -> None:
    """Run one side in a process of its own."""
    asking, answer = pipes
    os.environ.update(scene.environment, AIRFLOW_HOME=tempfile.mkdtemp())
    make = getattr(importlib.import_module(f"benchmarks.jobs.{platform}"), name)
    make(scene.ids[0])
    side, is_cloud = Side(make, scene.ids, asking), platform in CLOUDS
    answer.send(asyncio.run(side.measure(seconds, STARTED[name] if is_cloud else 0, ends=not is_cloud)))


def run(platform: str, name: str, seconds: float) -> dict[str, Any]:
    """Measure one side against a platform of its own."""
    spawn = multiprocessing.get_context("spawn")
    (here, there), (end, answer) = spawn.Pipe(), spawn.Pipe(duplex=False)
    server = spawn.Process(target=_serve, args=(platform, there))
    server.start()
    there.close()
    try:
        client = spawn.Process(target=_side, args=(platform, name, here.recv(), seconds, (here, answer)))
        client.start()
        answer.close()
        found: dict[str, Any] = end.recv()
        client.join()
        return found
    finally:
        here.send("stop")
        server.join()
