"""What a container sees at its paths: mounted volumes and the file of its termination message.

Containers are processes of this machine, so nothing can be mounted at ``/data``. Instead a variable whose value is such
a path, or lies below one, gets the private folder that stands for it: a program that takes its paths from variables
sees what it would see in a cluster. Commands see it through ``$(NAME)``; a path in a command itself is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from airflow_mlops.testing.kubernetes.problems import Json

MESSAGE_BYTES = 4096


def private_paths(folder: Path, pod: Json, container: Json) -> dict[str, Path]:
    """Return, for each path of a container, what stands for it on this machine; folders and file are made.

    A claim is one folder for all pods of its namespace, an ``emptyDir`` one for all containers of its pod.
    """
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes") or []}
    found = {message_path(container): message_file(folder, pod, container)}
    found[message_path(container)].touch()
    for mount in container.get("volumeMounts") or []:
        place = _volume(folder, pod, volumes[mount["name"]]) / (mount.get("subPath") or "")
        place.mkdir(parents=True, exist_ok=True)
        found[mount["mountPath"].rstrip("/")] = place
    return found


def translated(values: Mapping[str, str], paths: Mapping[str, Path]) -> dict[str, str]:
    """Return variables with the paths of the container replaced by the private ones; the longest match counts."""
    return {name: _translated(value, paths) for name, value in values.items()}


def message_path(container: Json) -> str:
    """Return where the container writes its termination message, as it sees it."""
    return str(container.get("terminationMessagePath") or "/dev/termination-log")


def message_file(folder: Path, pod: Json, container: Json) -> Path:
    """Return the file that stands for it."""
    home = folder / str(pod["metadata"]["uid"])
    home.mkdir(exist_ok=True)
    return home / f".termination-log-{container['name']}"


def message(folder: Path, pod: Json, container: Json) -> str:
    """Return the termination message: the last 4096 bytes of the file, as a kubelet reads them."""
    path = message_file(folder, pod, container)
    return path.read_bytes()[-MESSAGE_BYTES:].decode(errors="replace") if path.exists() else ""


def _volume(folder: Path, pod: Json, volume: Json) -> Path:
    if claim := volume.get("persistentVolumeClaim"):
        return folder / "claims" / str(pod["metadata"]["namespace"]) / str(claim["claimName"])
    return folder / "volumes" / str(pod["metadata"]["uid"]) / str(volume["name"])


def _translated(value: str, paths: Mapping[str, Path]) -> str:
    for path in sorted(paths, key=len, reverse=True):
        if value == path or value.startswith(f"{path}/"):
            return f"{paths[path]}{value[len(path) :]}"
    return value
