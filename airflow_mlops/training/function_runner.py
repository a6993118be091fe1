"""The program that runs one Python function as a job: sent as text, so that the image needs nothing of ours.

Python 3.9 and the standard library only. It is run as ``python -u -c <this text> <source> <call> [--name value ...]``.
"""

from __future__ import annotations

import json
import linecache
import os
import sys
import traceback
from types import TracebackType
from typing import Any, Callable  # noqa: UP035 - this runs on Python 3.9

REPORT = ("metrics", "model_uri", "run_id")


def main(source: str, call: dict[str, Any], flags: list[str]) -> int:
    """Define the function as it stands in its file, call it, report what it returns; return the exit code."""
    arguments = call["arguments"]
    for flag, value in zip(flags[::2], flags[1::2]):  # noqa: B905 - strict is of Python 3.10
        name = flag[2:]
        arguments[name] = value if name in call["text"] else json.loads(value)
    sys.argv = [call["file"]]
    try:
        returned = define(source, call)(**arguments)
    except Exception as error:  # noqa: BLE001 - whatever it is, the user sees it from the user's own lines on
        traceback.print_exception(type(error), error, _theirs(error.__traceback__))
        return 1
    if returned is not None and os.environ.get("MLOPS_NODE_RANK", "0") == "0":
        report(returned, call["name"])
    return 0


def define(source: str, call: dict[str, Any]) -> Callable[..., Any]:
    """Return the function, with the lines of its own file. A block around an indented one leaves its text alone.

    Annotations are lazy in this program and so in what it compiles: types in a signature need not exist in the image.
    """
    before = "\n" * (call["line"] - 2) + "if True:\n" if source[0].isspace() else "\n" * (call["line"] - 1)
    text = before + source
    linecache.cache[call["file"]] = (len(text), None, text.splitlines(True), call["file"])
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, call["file"], "exec"), names)  # noqa: S102 - it is the user's own function
    function: Callable[..., Any] = names[call["name"]]
    return function


def report(returned: object, name: str) -> None:
    """Write what the function returned to the job's output."""
    if not isinstance(returned, dict):
        sys.exit(f"{name}() returned {returned!r}. Return None, a dict of metrics, or a dict of {', '.join(REPORT)}.")
    output = returned if set(REPORT) & set(returned) else {"metrics": returned}
    try:
        metrics = {key: float(value) for key, value in dict(output.get("metrics") or {}).items()}
        text = json.dumps({**output, "metrics": metrics}, allow_nan=False)
    except (TypeError, ValueError) as error:
        sys.exit(f"{name}() returned {returned!r}, which cannot be reported: {error}. Metrics are finite numbers.")
    with open(os.environ["MLOPS_OUTPUT"], "w") as file:
        file.write(text)


def _theirs(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback from the first frame on that is not of this program."""
    while trace is not None and trace.tb_frame.f_code.co_filename == main.__code__.co_filename:
        trace = trace.tb_next
    return trace


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]))
