"""What the program in a job sees, the same on every platform: its arguments and its ``MLOPS_`` variables.

Pure. A backend adds only what its platform alone knows, for example where the output file is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.core.refs import DataVersion
from airflow_mlops.training.contract import TrainingSpec

INPUT_PREFIX = "MLOPS_INPUT_"
JOB_NAME = "MLOPS_JOB_NAME"
ATTEMPT = "MLOPS_ATTEMPT"
OUTPUT = "MLOPS_OUTPUT"
CHECKPOINT_DIR = "MLOPS_CHECKPOINT_DIR"
NODES = "MLOPS_NODES"
"""How many nodes the job has: the size of the world."""
NODE_RANK = "MLOPS_NODE_RANK"
"""Which of them this is: 0 to ``MLOPS_NODES`` - 1. Only node 0 writes ``MLOPS_OUTPUT``."""
MASTER_ADDR = "MLOPS_MASTER_ADDR"
"""Host of node 0, as the other nodes reach it."""
MASTER_PORT = "MLOPS_MASTER_PORT"
RUN_ID = "MLFLOW_RUN_ID"

_NAME = re.compile(r"[A-Za-z_][\w.-]*")
_PROGRESS = re.compile(r"mlops progress (\d(?:\.\d+)?)\s*")


def command_line(spec: TrainingSpec) -> list[str]:
    """Return the program with all its arguments: ``command``, ``args``, then ``--name value`` of each parameter.

    :raises InvalidSpecError: there is no command, or a parameter's name is not a word
    """
    if not spec.command:
        raise InvalidSpecError("The training command is empty. Give the program and its arguments.")
    flags: list[str] = []
    for name, value in spec.parameters.items():
        if not _NAME.fullmatch(name):
            raise InvalidSpecError(f"The parameter name {name!r} cannot be a flag. Use letters, digits, '_', '-', '.'.")
        flags += [f"--{name}", flag_value(value)]
    return [*map(str, spec.command), *map(str, spec.args), *flags]


def flag_value(value: Any) -> str:
    """Return *value* as a flag or tracked parameter shows it: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def checkpoint_address(base: str, name: str) -> str:
    """Return where the checkpoints called *name* are kept below *base*, a folder or an address."""
    return f"{base.rstrip('/')}/{name}" if base and name else base


def told_progress(line: str) -> float | None:
    """Return the share done that a line of a job's log tells, or ``None`` when it tells none.

    A program tells by printing ``mlops progress 0.42`` on a line of its own, on any platform.
    """
    found = _PROGRESS.fullmatch(line)
    return min(float(found[1]), 1.0) if found else None


def read_inputs(inputs: Mapping[str, Any]) -> tuple[dict[str, DataVersion], dict[str, str]]:
    """Split an operator's inputs into data versions and the variables that tell the job where the bytes are.

    An input is what a task that fetched data returned (``{"version": ..., "path": ...}``), a data version alone (the
    job sees its address and fetches it), or a plain path (then no version is known).

    :raises InvalidSpecError: an input is none of these, or two names make the same variable
    """
    versions: dict[str, DataVersion] = {}
    variables: dict[str, str] = {}
    for name, value in inputs.items():
        variable = INPUT_PREFIX + re.sub(r"\W", "_", name).upper()
        if variable in variables:
            raise InvalidSpecError(f"Two inputs make the variable {variable!r}. Rename {name!r}.")
        version, variables[variable] = _input(name, value)
        if version is not None:
            versions[name] = version
    return versions, variables


def _input(name: str, value: Any) -> tuple[DataVersion | None, str]:
    if isinstance(value, str) and value:
        return None, value
    if isinstance(value, DataVersion):
        return value, value.uri
    if isinstance(value, Mapping) and "version" in value:
        version = DataVersion.from_dict(value["version"])
        return version, str(value.get("path") or version.uri)
    if isinstance(value, Mapping):
        version = DataVersion.from_dict(value)
        return version, version.uri
    raise InvalidSpecError(
        f"Input {name!r} is {value!r}. Give a path, a data version, or what a task that fetched data returned."
    )
