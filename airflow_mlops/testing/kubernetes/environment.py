"""The command and environment of a container: values, Secrets, fields of the pod, and ``$(NAME)`` references."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

from airflow_mlops.testing.kubernetes.kinds import SECRETS
from airflow_mlops.testing.kubernetes.problems import Json
from airflow_mlops.testing.kubernetes.store import Store

SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
REFERENCE = re.compile(r"\$(\$|\(([^()]+)\))")


class ConfigError(Exception):
    """The container cannot be created: a Secret, key or field it needs is not there."""


def environment(store: Store, pod: Json, container: Json, base: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a container on top of those of its image.

    :raises ConfigError: a Secret or key is missing and not optional
    """
    values = dict(base) | {"HOSTNAME": pod["spec"].get("hostname") or pod["metadata"]["name"]}
    for source in container.get("envFrom") or []:
        values.update(_whole_secret(store, pod, source))
    for variable in container.get("env") or []:
        value = _value(store, pod, variable, values)
        if value is not None:
            values[variable["name"]] = value
    return values


def command(container: Json, values: Mapping[str, str]) -> list[str]:
    """Return the program and its arguments.

    :raises ConfigError: there is none; the image's own is not known here
    """
    words = [*(container.get("command") or []), *(container.get("args") or [])]
    if not container.get("command"):
        raise ConfigError("no command specified")
    return [expanded(word, values) for word in words]


def expanded(text: str, values: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` by its value; an unknown name stays, ``$$`` is one dollar sign."""
    return REFERENCE.sub(lambda found: "$" if found[1] == "$" else values.get(found[2], found[0]), text)


def _value(store: Store, pod: Json, variable: Json, values: Mapping[str, str]) -> str | None:
    source = variable.get("valueFrom")
    if source is None:
        return expanded(variable.get("value") or "", values)
    if "fieldRef" in source:
        return _field(pod, source["fieldRef"]["fieldPath"])
    wanted = source["secretKeyRef"]
    data = _secret(store, pod, wanted.get("name") or "", is_optional=bool(wanted.get("optional")))
    if wanted["key"] in data:
        return _text(data[wanted["key"]])
    if wanted.get("optional"):
        return None
    namespace = pod["metadata"]["namespace"]
    raise ConfigError(f"couldn't find key {wanted['key']} in Secret {namespace}/{wanted['name']}")


def _whole_secret(store: Store, pod: Json, source: Json) -> dict[str, str]:
    wanted = source.get("secretRef")
    if wanted is None:
        raise ConfigError("the fake knows no ConfigMaps: envFrom needs a secretRef")
    data = _secret(store, pod, wanted.get("name") or "", is_optional=bool(wanted.get("optional")))
    return {(source.get("prefix") or "") + key: _text(value) for key, value in data.items()}


def _secret(store: Store, pod: Json, name: str, *, is_optional: bool) -> dict[str, str]:
    found = store.find(SECRETS, pod["metadata"]["namespace"], name)
    if found is None and not is_optional:
        raise ConfigError(f'secret "{name}" not found')
    return dict((found or {}).get("data") or {})


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode()


def _field(pod: Json, path: str) -> str:
    if found := SUBSCRIPT.fullmatch(path):
        return str((pod["metadata"].get(found[1]) or {}).get(found[2], ""))
    known = {"metadata.name": "name", "metadata.namespace": "namespace", "metadata.uid": "uid"}
    if path not in known:
        raise ConfigError(f"the fake does not model the field {path}")
    return str(pod["metadata"][known[path]])
