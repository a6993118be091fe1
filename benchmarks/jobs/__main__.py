"""A thousand deferred jobs in one triggerer: our trigger beside the official operators' triggers, in one run.

Usage: ``python -m benchmarks.jobs [seconds] [platform ...]``. Prints one JSON line a figure: name, ours, theirs, ratio,
goal, unit. The official sides are the triggers of KubernetesJobOperator, of SageMakerTrainingOperator and of Vertex
AI's CreateCustomJobOperator, each with ``deferrable=True``.

A platform is the strict fake of ``airflow_mlops.testing`` in a process of its own, with 1,000 jobs that go on; each
side is a process with one event loop in which 1,000 real triggers wait with the same interval of ten seconds. Calls are
counted by the platform. On Kubernetes processor time, memory and latency are measured too: those of the waiting process
alone, and the time from the moment a Job's status says Complete to the trigger's event, for 100 Jobs that end one after
the other.

The goal of processor time is our own share of a core, the other goals are ratios.

The platform is one Python process: it cannot answer as fast as the official trigger of Kubernetes asks. That keeps the
calls and the processor time of the official side lower than they would be, and its latency higher. With nothing else to
do, 1,000 official triggers on a cloud ask 6,000 times a minute; on a busy machine less, which makes the ratio worse.
"""

from __future__ import annotations

import json
import sys

from benchmarks.jobs.measure import CLOUDS, ENDING, GIVE_UP, JOBS, run


def report(name: str, ours: float, theirs: float, goal: float, unit: str) -> None:
    """Print one figure."""
    ratio = round(ours / theirs, 4) if theirs else None
    figure = {"name": name, "ours": round(ours, 4), "theirs": round(theirs, 4), "ratio": ratio}
    print(json.dumps({**figure, "goal": goal, "unit": unit}), flush=True)


def kubernetes(seconds: float) -> None:
    """Measure all that is measured on Kubernetes."""
    we, they = run("kubernetes", "ours", seconds), run("kubernetes", "theirs", seconds)
    report(f"API calls for {JOBS} deferred jobs", we["calls"], they["calls"], 0.01, "calls/min")
    report(f"processor time for {JOBS} deferred jobs", we["cpu"], they["cpu"], 0.005, "share of one core")
    report("memory of a deferred job", we["memory"], they["memory"], 1.0, "bytes")
    report("p99 of the time until the end of a job is seen", we["latency"], they["latency"], 1.0, "s")
    report(f"ends of {ENDING} that were seen within {GIVE_UP:g} s", we["seen"], they["seen"], 1.0, "jobs")


def cloud(platform: str, seconds: float) -> None:
    """Measure the calls on a managed cloud."""
    we, they = run(platform, "ours", seconds), run(platform, "theirs", seconds)
    report(f"{CLOUDS[platform]} calls for {JOBS} deferred jobs", we["calls"], they["calls"], 0.02, "calls/min")


def main(seconds: float, platforms: list[str]) -> None:
    """Measure one side after the other, on one platform after the other."""
    for platform in platforms:
        if platform in CLOUDS:
            cloud(platform, seconds)
        else:
            kubernetes(seconds)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0, sys.argv[2:] or ["kubernetes", *CLOUDS])
