"""The program that a trial of Azure Machine Learning starts: it runs the user's, and tells Azure the metric.

It is sent as text: Python 3.9 and the standard library only. It is run as ``python -c <this text> <metric> <line>
<dimensions> <value> ...``: *line* is the shell line of the user's program, *dimensions* a JSON list that says what may
be searched, and the values are Azure's, one a dimension. It must never print the token.

The run that belongs to a trial is told by the variables ``MLFLOW_TRACKING_URI``, ``MLFLOW_TRACKING_TOKEN``,
``MLFLOW_RUN_ID`` and ``MLFLOW_EXPERIMENT_ID``; the token is short-lived and is exchanged for a new one all the time, as
the vendor's own helper for R does:
https://learn.microsoft.com/azure/machine-learning/how-to-r-modify-script-for-production#source-the-azureml_utilsr-helper-script
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

REPORT = "outputs/mlops_output.json"
PARAMETERS, VALUE = "mlops.parameters", "mlops.value"
LONGEST = 1000
ATTEMPTS = 5


def main(metric: str, line: str, dimensions: list[dict[str, Any]], words: list[str]) -> int:
    """Run the program with the values of this trial and report; return the exit code."""
    if len(words) != len(dimensions):
        sys.exit(f"Azure gave {len(words)} values for {len(dimensions)} parameters: {words}")
    parameters = {one["name"]: value_of(one, word) for one, word in zip(dimensions, words)}  # noqa: B905 - Python 3.9
    run = Run(os.environ)
    run.log(tags=parts(json.dumps(parameters)))
    threading.Thread(target=run.keep_token, daemon=True).start()
    flags = [word for name, value in parameters.items() for word in (f"--{name}", shown(value))]
    code = ran(["sh", "-c", line, "mlops", *flags], {**os.environ, "MLOPS_JOB_NAME": run.run_id})
    if code == 0 and os.path.exists(REPORT):  # node 0 alone has it
        value = reported(metric)
        run.log(tags={VALUE: json.dumps(value)}, metrics={metric: value})
    return code


def word_of(value: Any) -> str:
    """Return a choice as Azure is given it: a word that no shell reads otherwise."""
    return urllib.parse.quote(shown(value), safe="").replace("~", "%7E")


def value_of(dimension: dict[str, Any], word: str) -> Any:
    """Return the value that Azure's *word* stands for."""
    if "choices" in dimension:
        found = [value for value in dimension["choices"] if word_of(value) == word]
        return found[0] if found else sys.exit(f"Azure gave {word!r} for {dimension['name']!r}, which is no choice.")
    number = min(max(float(word), dimension["low"]), dimension["high"])
    return round(number) if dimension["type"] == "int" else number


def shown(value: Any) -> str:
    """Return *value* as a flag shows it."""
    return value if isinstance(value, str) else json.dumps(value)


def parts(text: str) -> dict[str, str]:
    """Return the tags that hold a text: what is too long for one goes into several."""
    found = [text[start : start + LONGEST] for start in range(0, len(text), LONGEST)]
    return {PARAMETERS if not number else f"{PARAMETERS}.{number}": part for number, part in enumerate(found)}


def ran(command: list[str], env: dict[str, str]) -> int:
    """Return the exit code of a program, which gets the order to end that we get."""
    running: list[subprocess.Popen[bytes]] = []
    orders: list[int] = []  # an order may come before the program runs, or as it begins

    def pass_on(order: int, _: object) -> None:
        orders.append(order)
        for process in running:
            process.terminate()

    signal.signal(signal.SIGTERM, pass_on)
    with subprocess.Popen(command, env=env) as process:
        running.append(process)
        if orders:
            process.terminate()
        code = process.wait()
    return code if code >= 0 else 128 - code


def reported(metric: str) -> float:
    """Return the metric that the program reported, or end with what is wrong."""
    with open(REPORT, encoding="utf-8") as file:
        try:
            value = json.load(file).get("metrics", {}).get(metric)
        except (ValueError, AttributeError) as error:
            sys.exit(f"What the program wrote to MLOPS_OUTPUT cannot be read: {error}")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        sys.exit(f"The program ended well, but its metric {metric!r} in MLOPS_OUTPUT is {value!r}, not a number.")
    return float(value)


class Run:
    """The tracking run that belongs to this job."""

    def __init__(self, env: Any) -> None:
        missing = [
            name for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN", "MLFLOW_RUN_ID") if name not in env
        ]
        if missing:
            sys.exit(f"Azure did not tell this job its tracking run: {', '.join(missing)} is not set.")
        self._base = env["MLFLOW_TRACKING_URI"].partition("?")[0].rstrip("/").replace("azureml://", "https://", 1)
        self._token, self.run_id = env["MLFLOW_TRACKING_TOKEN"], env["MLFLOW_RUN_ID"]
        self._experiment = env.get("MLFLOW_EXPERIMENT_ID", "")
        self._pause = float(env.get("MLFLOW_TOKEN_REFRESH_INTERVAL_SECONDS", "30"))

    def log(self, tags: dict[str, str], metrics: Any = None) -> None:
        """Log tags and metrics; a trial whose metric cannot be logged has failed."""
        now = int(time.time() * 1000)
        body = {
            "run_id": self.run_id,
            "metrics": [{"key": key, "value": v, "timestamp": now, "step": 0} for key, v in (metrics or {}).items()],
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        }
        self._ask(f"{self._base}/api/2.0/mlflow/runs/log-batch", json.dumps(body).encode())

    def keep_token(self) -> None:
        """Exchange the token for a new one, for as long as the program runs; a miss is made up for by the next."""
        base = self._base.replace("/mlflow/v1.0", "/history/v1.0").replace("/mlflow/v2.0", "/history/v1.0")
        where = f"{base}/experimentids/{self._experiment}/runs/{self.run_id}/token"
        while self._experiment:
            time.sleep(self._pause)
            with contextlib.suppress(SystemExit):
                self._token = self._ask(where, None)["token"]

    def _ask(self, address: str, body: Any) -> Any:
        """Return the JSON answer; what may pass is asked again."""
        for attempt in range(1, ATTEMPTS + 1):
            headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
            request = urllib.request.Request(address, body, headers)  # noqa: S310 - Azure's own address
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                    return json.loads(answer.read() or b"{}")
            except urllib.error.HTTPError as error:
                if attempt == ATTEMPTS or (error.code != 429 and error.code < 500):
                    sys.exit(f"The tracking run of this job answered HTTP {error.code}: {error.read(500)!r}")
            except OSError as error:
                if attempt == ATTEMPTS:
                    sys.exit(f"The tracking run of this job did not answer: {error}")
            time.sleep(2**attempt / 4)
        raise AssertionError("the last attempt returns or ends the program")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.argv[4:]))
