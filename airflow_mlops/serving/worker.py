"""The process of one revision: loads the model, answers one question after another, ends with the gateway.

Started by :mod:`airflow_mlops.serving.process` with the number of its socket and the folder of the model. Its standard
input is a lifeline: when the gateway dies, however it dies, the line ends and so does the worker, even in the middle of
loading. What a model prints and why it failed goes to the log; the data of a request never does.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.serving.frames import pack, read_frame
from airflow_mlops.serving.schema import Table
from airflow_mlops.serving.scorer import Scorer, load_scorer


def main(arguments: list[str]) -> int:
    """Load the model, say so, and answer until the socket ends. Returns the exit status."""
    descriptor, folder = int(arguments[0]), Path(arguments[1])
    lifeline = os.dup(0)
    threading.Thread(target=_end_with_gateway, args=(lifeline,), daemon=True).start()
    with socket.socket(fileno=descriptor) as line:
        try:
            scorer = load_scorer(folder)
        except Exception as error:  # noqa: BLE001 - whatever the model's code raises is the answer
            line.sendall(pack({"failed": f"{type(error).__name__}: {error}"}))
            return 1
        line.sendall(pack({"ready": scorer.schema.to_dict()}))
        _answer(line, scorer)
    return 0


def _end_with_gateway(lifeline: int) -> None:
    while os.read(lifeline, 1):
        continue
    os._exit(0)


def _answer(line: socket.socket, scorer: Scorer) -> None:
    with line.makefile("rb") as questions:
        while (question := read_frame(questions)) is not None:
            line.sendall(pack(_score(scorer, question)))


def _score(scorer: Scorer, question: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"predictions": scorer.score(Table(tuple(question["names"]), tuple(question["columns"])))}
    except InvalidSpecError as error:
        return {"refused": str(error)}
    except Exception as error:  # noqa: BLE001 - a model may raise anything; its text may hold data, so only its class
        return {"failed": type(error).__name__}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
