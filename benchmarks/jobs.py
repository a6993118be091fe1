"""A thousand deferred jobs in one event loop: our shared watcher beside a loop that asks for each job by itself.

Usage: ``python benchmarks/jobs.py [seconds]``. Prints one JSON line a figure: name, ours, theirs, ratio, goal, unit.
The platform is a small HTTP server in a process of its own with a page for each job and one for all; both sides use
the same client, ask every ten seconds and make their calls in threads. The loop is what a trigger for each job does:
ask, sleep, ask again. Processor time is that of the waiting process alone.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from airflow_mlops.training.contract import JobHandle, JobState, JobStatus
from airflow_mlops.training.watch import Place, watch
from airflow_mlops.training.watch_rules import Pace

JOBS = 1000
INTERVAL = 10.0
RUNNING = {"state": "running", "native": "RUNNING", "detail": "", "created": "2026-01-01T00:00:00Z", "owner": "x" * 40}


class Platform(BaseHTTPRequestHandler):
    """Answers ``/jobs`` with all jobs and ``/jobs/<name>`` with one."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer one question."""
        one = self.path.removeprefix("/jobs/") if self.path.startswith("/jobs/") else ""
        names = [one] if one else [f"job-{number}" for number in range(JOBS)]
        body = json.dumps([{"name": name, **RUNNING} for name in names]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def serve(port: multiprocessing.Queue[int]) -> None:
    """Serve until the process is ended."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Platform)
    port.put(server.server_port)
    server.serve_forever()


class Backend:
    """The verb of a training backend that waiting needs, for the platform above."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url, trust_env=False, timeout=60)
        self.calls = 0

    def observe(self, handles: Iterable[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        """Look at many jobs with one call, and at one with a call for it alone."""
        by_name = {handle.job_id: handle for handle in handles}
        self.calls += 1
        answer = self.client.get(f"/jobs/{next(iter(by_name))}" if len(by_name) == 1 else "/jobs").json()
        return {
            by_name[job["name"]]: JobStatus(JobState(job["state"]), job["native"], job["detail"])
            for job in answer
            if job["name"] in by_name
        }


async def together(backend: Any, handle: JobHandle) -> None:
    """Wait as our trigger does."""

    async def connect() -> Any:
        return backend

    await watch(handle, Place("bench"), connect, interval=INTERVAL, pace=Pace(first_look=0.0))


async def alone(backend: Any, handle: JobHandle) -> None:
    """Wait as a trigger does that asks for its own job only. The first questions are spread over one interval."""
    await asyncio.sleep(random.random() * INTERVAL)
    while True:
        status = (await asyncio.to_thread(backend.observe, [handle])).get(handle)
        if status is None or status.state.terminal:
            return
        await asyncio.sleep(INTERVAL)


async def measure(url: str, wait: Callable[[Any, JobHandle], Awaitable[None]], seconds: float) -> tuple[float, float]:
    """Return calls and processor seconds a minute, after one interval to get going."""
    backend = Backend(url)
    waiting = [asyncio.ensure_future(wait(backend, JobHandle("bench", f"job-{number}"))) for number in range(JOBS)]
    await asyncio.sleep(1.5 * INTERVAL)
    calls, cpu, begun = backend.calls, time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    minutes = (time.monotonic() - begun) / 60
    found = (backend.calls - calls) / minutes, (time.process_time() - cpu) / minutes
    for task in waiting:
        task.cancel()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    if not all(isinstance(end, asyncio.CancelledError) for end in ended):
        raise RuntimeError(f"Not all {JOBS} waited to the end.")
    return found


def report(name: str, ours: float, theirs: float, goal: float, unit: str) -> None:
    """Print one figure."""
    figure = {"name": name, "ours": round(ours, 3), "theirs": round(theirs, 3), "ratio": round(ours / theirs, 4)}
    print(json.dumps({**figure, "goal": goal, "unit": unit}), flush=True)


def main(seconds: float) -> None:
    """Measure one after the other."""
    spawn = multiprocessing.get_context("spawn")
    port = spawn.Queue()
    server = spawn.Process(target=serve, args=(port,), daemon=True)
    server.start()
    try:
        url = f"http://127.0.0.1:{port.get(timeout=60)}"
        ours = asyncio.run(measure(url, together, seconds))
        theirs = asyncio.run(measure(url, alone, seconds))
    finally:
        server.terminate()
        server.join()
    report(f"API calls for {JOBS} waiting jobs", ours[0], theirs[0], 0.01, "calls/min")
    report(f"processor time for {JOBS} waiting jobs", ours[1], theirs[1], 0.1, "CPU s/min")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
