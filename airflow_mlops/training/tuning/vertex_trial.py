"""Runs around the start command of every trial, in an image with ``python3``, 3.7 or newer; it imports nothing of ours.

It gives the trial folders of its own and its program the flags that every platform gives, and tells Vertex AI the
metric out of the program's report. A trial that reported none fails: it must not look like one that was measured.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from typing import Any

MARK = "--mlops-searched"
"""The last argument of ours: Vertex AI appends those of the trial after it."""

REFUSED = 70


def flags(told: list[str], space: dict[str, Any]) -> list[str]:
    """Return ``--name value`` of each searched parameter. Vertex AI may write ``--name=value``, and 3 as ``3.0``."""
    rest, found = list(told), []
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        value = value if equals else rest.pop(0)
        is_whole = space[flag[2:]].get("type") == "int"
        found += [flag, str(int(float(value))) if is_whole else value]
    return found


def own(env: dict[str, str]) -> dict[str, str]:
    """Return the variables with a folder below each of the search's for this trial alone."""
    number, found = trial_id(env), dict(env)
    folder, _, file = env["MLOPS_REPORT"].rpartition("/")
    found["MLOPS_REPORT"] = f"{folder}/{number}/{file}"
    if env.get("MLOPS_CHECKPOINT_DIR"):
        found["MLOPS_CHECKPOINT_DIR"] = env["MLOPS_CHECKPOINT_DIR"].rstrip("/") + f"/{number}"
    return found


def trial_id(env: dict[str, str]) -> str:
    """Return the id of the trial, by which Vertex AI also calls the trial's own base output directory."""
    return env.get("CLOUD_ML_TRIAL_ID") or env["AIP_MODEL_DIR"].rstrip("/").split("/")[-2]


def is_first_node(env: dict[str, str]) -> bool:
    """Say whether this is the only node of the first pool, whose program reports."""
    task = json.loads(env.get("CLUSTER_SPEC") or "{}").get("task") or {}
    return bool(task.get("type", "workerpool0") == "workerpool0")


def measured(report: str, metric: str) -> float:
    """Return the metric out of a report.

    :raises ValueError: it has no such number
    """
    with open(report) as file:
        text = file.read()
    metrics = json.loads(text or "{}").get("metrics") or {}
    if metric not in metrics:
        raise ValueError(f"the program reported no metric {metric!r}, only {sorted(metrics)}")
    if isinstance(metrics[metric], bool) or not math.isfinite(float(metrics[metric])):
        raise ValueError(f"the metric {metric!r} is {metrics[metric]!r}")
    return float(metrics[metric])


def tell(path: str, metric: str, value: float, number: str) -> None:
    """Add a line to the file that Vertex AI reads, after those that the program may have written, as of its last step.

    https://github.com/GoogleCloudPlatform/cloudml-hypertune
    """
    step = "0"
    if os.path.exists(path):
        with open(path) as file:
            step = ([json.loads(line).get("global_step", step) for line in file if line.strip()] or [step])[-1]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    line = {"timestamp": time.time(), "trial": number, metric: str(value), "global_step": str(step)}
    with open(path, "a") as file:
        file.write(json.dumps(line, sort_keys=True) + "\n")


def ran(command: list[str], env: dict[str, str]) -> int:
    """Return the exit code of a program, which gets the order to end that we get, even as it begins."""
    running: list[subprocess.Popen[bytes]] = []
    orders: list[int] = []

    def pass_on(order: int, _: object) -> None:
        orders.append(order)
        for process in running:
            process.terminate()

    signal.signal(signal.SIGTERM, pass_on)
    with subprocess.Popen(command, env=env) as process:
        running.append(process)
        if orders:
            process.terminate()
        return process.wait()


def main(words: list[str]) -> int:
    """Run the start command and return its exit code."""
    search, env = json.loads(os.environ["MLOPS_SEARCH"]), own(dict(os.environ))
    end = len(words) - 1 - words[::-1].index(MARK)
    code = ran([*words[:end], *flags(words[end + 1 :], search["space"])], env)
    if code or not is_first_node(env):
        return code if code >= 0 else 128 - code
    try:
        value = measured(env["MLOPS_REPORT"], search["metric"])
        file = env.get("CLOUD_ML_HP_METRIC_FILE") or "/tmp/hypertune/output.metrics"  # noqa: S108 - hypertune's own
        tell(file, search["metric"], value, trial_id(env))
    except (OSError, TypeError, AttributeError, ValueError) as error:
        print(f"mlops: the trial has no result: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the job's log
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
