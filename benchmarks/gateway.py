"""The embedded gateway beside ``mlflow models serve``: the same scikit-learn model, the same client, one row a request.

Usage: ``python benchmarks/gateway.py [requests]``. Prints one JSON line a figure. Both servers run on this machine at
the same time and are asked in turns, so that other work on the machine hits both alike.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from airflow_mlops.testing.gateway import running_gateway

FEATURES = 10
BODY = {
    "dataframe_split": {"columns": [f"f{i}" for i in range(FEATURES)], "data": [[0.1 * i for i in range(FEATURES)]]}
}


def save_model(folder: Path) -> Path:
    """Save a scaled logistic regression of ten features with its signature."""
    import mlflow.sklearn
    import numpy as np
    import pandas as pd
    from mlflow.models import infer_signature
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    data = pd.DataFrame(
        np.random.default_rng(0).normal(size=(500, FEATURES)), columns=[f"f{i}" for i in range(FEATURES)]
    )
    label = (data.f0 > 0).astype(int)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(data, label)
    mlflow.sklearn.save_model(model, folder, signature=infer_signature(data, label), pip_requirements=["scikit-learn"])
    return folder


def serve_with_mlflow(model: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start ``mlflow models serve`` in a process group of its own and wait until it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model), "--env-manager", "local"]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            if httpx.get(f"{url}/ping", trust_env=False).status_code == 200:
                return process, url
        except httpx.TransportError:
            time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    raise TimeoutError("mlflow models serve did not answer within 60 s")


def times(client: httpx.Client, address: str, count: int) -> list[float]:
    """Return the milliseconds of *count* requests, one after another."""
    found = []
    for _ in range(count):
        begun = time.perf_counter()
        client.post(address, json=BODY).raise_for_status()
        found.append((time.perf_counter() - begun) * 1000)
    return found


def report(name: str, found: list[float]) -> None:
    """Print the figures of one server."""
    cuts = statistics.quantiles(found, n=100, method="inclusive")
    figures = {"server": name, "requests": len(found), "p50_ms": round(cuts[49], 2), "p99_ms": round(cuts[98], 2)}
    print(json.dumps(figures), flush=True)


def main(count: int) -> None:
    """Measure both servers in ten turns."""
    with tempfile.TemporaryDirectory() as root, running_gateway(Path(root) / "gateway") as gateway:
        model = save_model(Path(root) / "model")
        begun = time.perf_counter()
        gateway.put("e", "v1", model)
        print(json.dumps({"server": "gateway", "seconds_until_ready": round(time.perf_counter() - begun, 2)}))
        gateway.shift("e", v1=100)
        process, url = serve_with_mlflow(model)
        ours, theirs = [], []
        try:
            with httpx.Client(trust_env=False, timeout=60) as client:
                for _ in range(11):
                    ours.append(times(client, f"{gateway.url}/endpoints/e/invocations", count // 10))
                    theirs.append(times(client, f"{url}/invocations", count // 10))
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)
        for name, found in (("gateway", ours), ("mlflow models serve", theirs)):
            report(name, [value for turn in found[1:] for value in turn])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
