"""A thousand deferred jobs in one triggerer: our trigger beside the official KubernetesJobOperator's, in one run.

Usage: ``python benchmarks/jobs.py [seconds]``. Prints one JSON line a figure: name, ours, theirs, ratio, goal, unit.
The cluster is the strict API server of ``airflow_mlops.testing.kubernetes`` in a process of its own, with 1,000 Jobs;
each side is a process with one event loop in which 1,000 real triggers wait with a ``poll_interval`` of ten seconds.
Calls are counted by the cluster. Processor time and memory are those of the waiting process alone. Latency is the time
from the moment a Job's status says Complete to the trigger's event, for 100 Jobs that end one after the other.

The goal of processor time is our own share of a core, the other goals are ratios.

The cluster is one Python process: it cannot answer as fast as the official trigger asks. That keeps its calls and its
processor time lower than they would be, and its latency higher.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

JOBS, ENDING, INTERVAL, GIVE_UP = 1000, 100, 10.0, 60.0


def cluster(pipe: Connection) -> None:
    """Run the API server with its Jobs, and do what is asked for until the pipe ends."""
    from airflow_mlops.core.identity import TaskIdentity
    from airflow_mlops.testing.kubernetes import JOBS as KIND
    from airflow_mlops.testing.kubernetes import kubernetes_fake
    from airflow_mlops.training.backends.kubernetes_job import job_body
    from airflow_mlops.training.backends.kubernetes_pod import read_options
    from airflow_mlops.training.contract import TrainingSpec

    spec, options = TrainingSpec(("true",), image="busybox:1"), read_options("kubernetes", {}, {})
    true = {"status": "True", "lastTransitionTime": datetime.datetime.now(datetime.UTC).isoformat()}
    done = {"conditions": [{"type": kind, **true} for kind in ("SuccessCriteriaMet", "Complete")]}
    with kubernetes_fake(bookmark_seconds=30) as fake:
        for number in range(JOBS):
            body = job_body(spec, f"job-{number}", TaskIdentity("bench", "run", "train", number), options)
            body["spec"]["suspend"] = True
            fake.create(KIND, body, "default")
        pipe.send(str(fake.kubeconfig))
        while (asked := pipe.recv()) != "stop":
            if asked == "calls":
                pipe.send(fake.calls.count())
            else:
                fake.set_status(KIND, f"job-{asked}", done)
                pipe.send(time.time())


def ours(number: int) -> Any:
    """Return the trigger of a TrainModelOperator."""
    from airflow_mlops.triggers.training import TrainingJobTrigger

    return TrainingJobTrigger(
        "kubernetes", {"backend": "kubernetes", "job_id": f"default/job-{number}"}, "k8s", INTERVAL
    )


def theirs(number: int) -> Any:
    """Return the trigger of a KubernetesJobOperator."""
    from airflow.providers.cncf.kubernetes.triggers.job import KubernetesJobTrigger

    return KubernetesJobTrigger(
        job_name=f"job-{number}",
        job_namespace="default",
        pod_names=[],
        pod_namespace="default",
        base_container_name="main",
        kubernetes_conn_id="k8s",
        poll_interval=INTERVAL,
        get_logs=False,
    )


def resident() -> int:
    """Return this process's memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def measure(make: Callable[[int], Any], pipe: Connection, seconds: float) -> dict[str, Any]:
    """Wait for all jobs, first while nothing happens, then while some of them end."""
    ended: dict[int, float] = {}

    async def wait(number: int) -> None:
        async for _ in make(number).run():
            ended[number] = time.time()
            return

    async def ask(what: object) -> Any:
        pipe.send(what)
        return await asyncio.to_thread(pipe.recv)

    before = resident()
    waiting = [asyncio.ensure_future(wait(number)) for number in range(JOBS)]
    await asyncio.sleep(2 * INTERVAL)
    calls, cpu, begun = await ask("calls"), time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    took, cpu = time.monotonic() - begun, time.process_time() - cpu
    found = {
        "calls": (await ask("calls") - calls) / took * 60,
        "cpu": cpu / took,
        "memory": (resident() - before) / JOBS,
    }
    told = {}
    for number in range(ENDING):
        told[number] = await ask(number)
        await asyncio.sleep(0.1)
    await asyncio.wait(waiting[:ENDING], timeout=GIVE_UP)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    latencies = sorted(ended.get(number, float("inf")) - moment for number, moment in told.items())
    return found | {"latency": latencies[int(ENDING * 0.99) - 1], "seen": len(ended)}


def side(name: str, kubeconfig: str, asking: Connection, seconds: float, answer: Connection) -> None:
    """Run one side in a process of its own."""
    os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp()
    os.environ["AIRFLOW_CONN_K8S"] = json.dumps({"conn_type": "kubernetes", "extra": {"kube_config_path": kubeconfig}})
    make = {"ours": ours, "theirs": theirs}[name]
    make(0)
    answer.send(asyncio.run(measure(make, asking, seconds)))


def run(name: str, seconds: float) -> dict[str, Any]:
    """Measure one side against a cluster of its own."""
    spawn = multiprocessing.get_context("spawn")
    (here, there), (end, answer) = spawn.Pipe(), spawn.Pipe(duplex=False)
    server = spawn.Process(target=cluster, args=(there,))
    server.start()
    try:
        client = spawn.Process(target=side, args=(name, here.recv(), here, seconds, answer))
        client.start()
        answer.close()
        found: dict[str, Any] = end.recv()
        client.join()
        return found
    finally:
        here.send("stop")
        server.join()


def report(name: str, ours: float, theirs: float, goal: float, unit: str) -> None:
    """Print one figure."""
    ratio = round(ours / theirs, 4) if theirs else None
    figure = {"name": name, "ours": round(ours, 4), "theirs": round(theirs, 4), "ratio": ratio}
    print(json.dumps({**figure, "goal": goal, "unit": unit}), flush=True)


def main(seconds: float) -> None:
    """Measure one side after the other."""
    we, they = run("ours", seconds), run("theirs", seconds)
    report(f"API calls for {JOBS} deferred jobs", we["calls"], they["calls"], 0.01, "calls/min")
    report(f"processor time for {JOBS} deferred jobs", we["cpu"], they["cpu"], 0.005, "share of one core")
    report("memory of a deferred job", we["memory"], they["memory"], 1.0, "bytes")
    report("p99 of the time until the end of a job is seen", we["latency"], they["latency"], 1.0, "s")
    report(f"ends of {ENDING} that were seen within {GIVE_UP:g} s", we["seen"], they["seen"], 1.0, "jobs")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
