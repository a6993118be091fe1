"""Runs inside a job, before its program, in any image with Python 3.7 or newer; it imports nothing of ours.

It prints ``export NAME='value'`` lines: secrets, fetched as the job's own account, and the node's place among the
others. What it prints goes into a shell variable and must never get into the log.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import time
import urllib.request
from typing import Any

METADATA = "http://{}/computeMetadata/v1/instance/service-accounts/default/token"
PAUSES = (1, 3, 9)


def ask(url: str, headers: dict[str, str]) -> Any:
    """Return the JSON at *url*; ask again when the server is away or fails."""
    for pause in (*PAUSES, None):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:  # noqa: S310
                return json.loads(answer.read().decode())
        except OSError as error:
            if pause is None or getattr(error, "code", 500) < 500:
                raise
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def secrets(wanted: dict[str, str]) -> dict[str, str]:
    """Return the values of secret versions, by variable.

    https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions/access
    """
    host = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
    token = ask(METADATA.format(host), {"Metadata-Flavor": "Google"})["access_token"]
    default = "https://secretmanager.googleapis.com/"
    service = os.environ.get("CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER", default)
    found = {}
    for name, version in wanted.items():
        answer = ask(f"{service}v1/{version}:access", {"Authorization": f"Bearer {token}"})
        found[name] = base64.b64decode(answer["payload"]["data"]).decode()
    return found


def place(cluster: dict[str, Any]) -> dict[str, str]:
    """Return the node's rank and how it reaches node 0, which is alone in the first pool.

    https://cloud.google.com/vertex-ai/docs/training/distributed-training#cluster-variables
    """
    host, _, port = cluster["cluster"]["workerpool0"][0].rpartition(":")
    rank = int(cluster["task"]["index"]) + (cluster["task"]["type"] != "workerpool0")
    return {"MLOPS_NODE_RANK": str(rank), "MLOPS_MASTER_ADDR": host, "MLOPS_MASTER_PORT": port}


if __name__ == "__main__":
    exports = secrets(json.loads(os.environ["MLOPS_SECRETS"])) if os.environ.get("MLOPS_SECRETS") else {}
    if os.environ.get("MLOPS_NODES", "1") != "1":
        exports.update(place(json.loads(os.environ["CLUSTER_SPEC"])))
    for key, value in exports.items():
        print(f"export {key}={shlex.quote(value)}")  # noqa: T201 - its output is its result
