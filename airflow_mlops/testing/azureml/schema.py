"""The shape of what is sent, by hand and compact: jobs, environments and components of the API ``2024-10-01``.

Written down from https://learn.microsoft.com/azure/templates/microsoft.machinelearningservices/2024-10-01/workspaces/jobs
(and ``.../environments/versions``, ``.../components/versions``). An unknown field, a missing one, a wrong type or an
unknown word is refused with its path; nothing is dropped. Fields that only the service writes are unknown here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_mlops.testing.azureml.problems import bad


@dataclass(frozen=True)
class Text:
    """A text, perhaps one of some words, of a pattern, or of a length."""

    words: tuple[str, ...] = ()
    pattern: str = ""
    longest: int = 1 << 22


@dataclass(frozen=True)
class Dict:
    """A mapping with free keys."""

    of: Any
    most: int = 1 << 20
    longest_key: int = 1 << 20


@dataclass(frozen=True)
class Object:
    """A mapping with known keys; those with a ``!`` must be there."""

    fields: Mapping[str, Any]


@dataclass(frozen=True)
class OneOf:
    """An object whose field *key* says which kind it is."""

    key: str
    kinds: Mapping[str, Mapping[str, Any]]


FREE = object()
"""Anything that is JSON."""

RUN_TEXT = Text(longest=1000)
TAGS = Dict(RUN_TEXT, most=50, longest_key=100)
"""https://learn.microsoft.com/azure/machine-learning/resource-limits-capacity#runs"""

DURATION = Text(pattern=r"P(?=.)(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+S)?)?")
SERVICE = Object({"jobServiceType": Text(), "port": int, "endpoint": Text(), "properties": Dict(Text()), "nodes": FREE})
RESOURCES = Object(
    {
        "instanceCount": int,
        "instanceType": Text(),
        "properties": Dict(FREE),
        "dockerArgs": Text(),
        "shmSize": Text(pattern=r"\d+[bBkKmMgG]"),
    }
)
DISTRIBUTION = OneOf(
    "distributionType",
    {
        "PyTorch": {"processCountPerInstance": int},
        "Mpi": {"processCountPerInstance": int},
        "TensorFlow": {"parameterServerCount": int, "workerCount": int},
    },
)
IDENTITY = OneOf(
    "identityType",
    {
        "Managed": {"clientId": Text(), "objectId": Text(), "resourceId": Text()},
        "UserIdentity": {},
        "AMLToken": {},
    },
)
_FILE = {"uri!": Text(), "mode": Text(), "description": Text()}
INPUT = OneOf(
    "jobInputType",
    {"literal": {"value!": Text(), "description": Text()}, "uri_file": _FILE, "uri_folder": _FILE, "mltable": _FILE},
)
_KEPT = {"uri": Text(), "mode": Text(("ReadWriteMount", "Upload")), "description": Text()}
OUTPUT = OneOf("jobOutputType", {"uri_file": _KEPT, "uri_folder": _KEPT})

COMMON: dict[str, Any] = {
    "description": Text(longest=5000),
    "tags": TAGS,
    "properties": TAGS,
    "displayName": Text(longest=256),
    "experimentName": Text(pattern=r"[a-zA-Z0-9][\w-]{0,254}"),
    "services": Dict(SERVICE),
    "computeId": Text(),
    "componentId": Text(),
    "identity": IDENTITY,
    "isArchived": bool,
    "notificationSetting": FREE,
}
JOB = OneOf(
    "jobType",
    {
        "Command": {
            **COMMON,
            "command!": Text(),
            "environmentId!": Text(),
            "codeId": Text(),
            "resources": RESOURCES,
            "distribution": DISTRIBUTION,
            "limits": Object({"jobLimitsType!": Text(("Command",)), "timeout": DURATION}),
            "queueSettings": Object({"jobTier": Text(("Null", "Spot", "Basic", "Standard", "Premium"))}),
            "environmentVariables": Dict(Text()),
            "inputs": Dict(INPUT),
            "outputs": Dict(OUTPUT),
        },
        "Pipeline": {
            **COMMON,
            "inputs": Dict(INPUT),
            "outputs": Dict(OUTPUT),
            "settings": Dict(FREE),
            "jobs": Dict(FREE),
            "sourceJobId": Text(),
        },
    },
)
_ASSET = {
    "description": Text(),
    "tags": Dict(Text()),
    "properties": Dict(Text()),
    "isAnonymous": bool,
    "isArchived": bool,
}
ENVIRONMENT = Object(
    {
        **_ASSET,
        "image": Text(),
        "condaFile": Text(),
        "osType": Text(("Linux", "Windows")),
        "build": FREE,
        "inferenceConfig": FREE,
        "autoRebuild": Text(("Disabled", "OnBaseImageUpdate")),
        "stage": Text(),
    }
)
CHANGEABLE = ("description", "tags", "displayName", "properties", "isArchived", "services", "notificationSetting")
"""Properties of a job that can be changed as long as it is there."""


def check(kind: Any, value: Any, path: str = "properties") -> None:
    """Check *value* against a kind.

    :raises Problem: 400, naming the field
    """
    if isinstance(kind, OneOf):
        _check_one_of(kind, value, path)
    elif isinstance(kind, Object):
        _check_object(kind.fields, value, path)
    elif isinstance(kind, Dict):
        _check_dict(kind, value, path)
    elif isinstance(kind, Text):
        _check_text(kind, value, path)
    elif kind is not FREE and type(value) is not kind:
        raise bad(f"The field {path} is {value!r}, not of type {kind.__name__}.")


def _check_one_of(kind: OneOf, value: Any, path: str) -> None:
    word = str(_mapping(value, path).get(kind.key))
    if word not in kind.kinds:
        raise bad(f"The field {path}.{kind.key} is {word!r}, not one of {sorted(kind.kinds)}.")
    _check_object({**kind.kinds[word], kind.key: Text()}, value, path)


def _check_object(fields: Mapping[str, Any], value: Any, path: str) -> None:
    known = {name.rstrip("!"): kind for name, kind in fields.items()}
    for key, one in _mapping(value, path).items():
        if key not in known:
            raise bad(f"Could not find member '{key}' on object at {path}.")
        check(known[key], one, f"{path}.{key}")
    for name in fields:
        if name.endswith("!") and not value.get(name[:-1]):
            raise bad(f"The field {path}.{name[:-1]} is required.")


def _check_dict(kind: Dict, value: Any, path: str) -> None:
    if len(_mapping(value, path)) > kind.most:
        raise bad(f"The field {path} has {len(value)} entries, more than {kind.most}.")
    for key, one in value.items():
        if len(key) > kind.longest_key:
            raise bad(f"A key of {path} is longer than {kind.longest_key} characters.")
        check(kind.of, one, f"{path}.{key}")


def _check_text(kind: Text, value: Any, path: str) -> None:
    if not isinstance(value, str):
        raise bad(f"The field {path} is {value!r}, not a string.")
    if kind.words and value not in kind.words:
        raise bad(f"The field {path} is {value!r}, not one of {list(kind.words)}.")
    if kind.pattern and not re.fullmatch(kind.pattern, value):
        raise bad(f"The field {path} is {value!r}, which does not match {kind.pattern!r}.")
    if len(value) > kind.longest:
        raise bad(f"The field {path} is longer than {kind.longest} characters.")


def _mapping(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise bad(f"The field {path} is {value!r}, not an object.")
    return value
