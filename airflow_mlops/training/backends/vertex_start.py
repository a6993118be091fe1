"""How a program is started in a container of Vertex AI, and how its report gets out. Pure.

A bucket is a folder there (``/gcs/<bucket>``), so checkpoints and the report are plain files. The start command needs
``sh``; with secrets or several nodes also Python. When the program ended well it keeps the report, an empty one if
there is none, or fails: so a report that is not there was lost. Values of secrets are never in a job's description.

https://cloud.google.com/vertex-ai/docs/training/cloud-storage-file-system
"""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.training import launch
from airflow_mlops.training.backends import vertex_prepare
from airflow_mlops.training.contract import TrainingSpec

REPORT, SECRETS = "MLOPS_REPORT", "MLOPS_SECRETS"
"""Variables of the start command: where the report is kept, and which secrets are wanted, by reference."""

OWNER, DATA = "MLOPS_OWNER", "MLOPS_DATA"
"""Variables that only we read: the task that owns the job, and the data versions it is trained on."""

MOST_VARIABLES = 100
_VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)  # else a shell prints name and value, a secret's too
MOUNT = "/gcs/"
MASTER_PORT = 29500

START = """\
MLOPS_OUTPUT="${TMPDIR:-/tmp}/mlops-output.json"
export MLOPS_OUTPUT
prepare=$1
shift
if [ "$prepare" != - ]; then
  python=$(command -v python3 || command -v python) || { echo "mlops: the image has no Python" >&2; exit 70; }
  exports=$("$python" -c "$prepare") || { echo "mlops: the job could not be prepared" >&2; exit 70; }
  eval "$exports"
fi
unset exports prepare MLOPS_SECRETS
if [ -n "${MLOPS_CHECKPOINT_DIR:-}" ]; then
  mkdir -p "$MLOPS_CHECKPOINT_DIR" || { echo "mlops: no folder $MLOPS_CHECKPOINT_DIR" >&2; exit 70; }
fi
rm -f "$MLOPS_OUTPUT"
"$@" &
child=$!
trap 'kill -TERM "$child"' TERM
wait "$child"
code=$?
while kill -0 "$child" 2>/dev/null; do
  wait "$child"
  code=$?
done
if [ "$code" -eq 0 ] && [ "${MLOPS_NODE_RANK:-0}" = 0 ]; then
  [ -e "$MLOPS_OUTPUT" ] || : > "$MLOPS_OUTPUT"
  mkdir -p "${MLOPS_REPORT%/*}" && cp "$MLOPS_OUTPUT" "$MLOPS_REPORT" || {
    echo "mlops: the report could not be kept as $MLOPS_REPORT" >&2
    exit 70
  }
fi
exit "$code"
"""
"""Starts ``$2 ...`` after ``$1``, the text of a Python program that prepares the environment, or ``-``."""

PREPARE = inspect.getsource(vertex_prepare)

_BUCKET = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[^\r\n]*)?")
_SECRET = re.compile(r"[A-Za-z0-9_-]{1,255}/(latest|[0-9]+)")
_SECRET_NAME = re.compile(r"projects/[^/]+/(locations/[^/]+/)?secrets/[^/]+(/versions/[^/]+)?")


def start_command(spec: TrainingSpec) -> tuple[list[str], list[str]]:
    """Return the container's command and its arguments."""
    prepare = PREPARE if spec.secret_env or spec.nodes > 1 else "-"
    return ["sh", "-c", START, "mlops", prepare], launch.command_line(spec)


def environment(
    spec: TrainingSpec, name: str, owner: TaskIdentity, *, project: str, report: str
) -> list[dict[str, str]]:
    """Return the container's variables.

    :param report: ``gs://`` address of the report
    :raises InvalidSpecError: an address or a reference to a secret is none, or there are too many variables
    """
    own = {
        launch.JOB_NAME: name,
        launch.NODES: str(spec.nodes),
        OWNER: _compact(owner.to_dict()),
        DATA: _compact({key: version.to_dict() for key, version in spec.inputs.items()}),
        REPORT: mounted(report),
    }
    if spec.nodes == 1:
        own |= {launch.NODE_RANK: "0", launch.MASTER_ADDR: "127.0.0.1", launch.MASTER_PORT: str(MASTER_PORT)}
    if spec.checkpoint:
        own[launch.CHECKPOINT_DIR] = mounted(spec.checkpoint)
    if spec.secret_env:
        wanted = {variable: secret_version(secret, project) for variable, secret in spec.secret_env.items()}
        own[SECRETS] = _compact(wanted)
    found = {"PYTHONUNBUFFERED": "1", **spec.env, **own}
    if bad := [key for key in (*found, *spec.secret_env) if not _VARIABLE.fullmatch(key)]:
        raise InvalidSpecError(f"{bad[0]!r} cannot be a variable. Use ASCII letters, digits and '_'.")
    if len(found) > MOST_VARIABLES:
        raise InvalidSpecError(f"The job has {len(found)} variables; Vertex AI takes {MOST_VARIABLES}. Pass a file.")
    return [{"name": key, "value": str(value)} for key, value in found.items() if key not in spec.secret_env]


def mounted(address: str) -> str:
    """Return where a container sees what is at a ``gs://`` address.

    :raises InvalidSpecError: it is another address
    """
    return MOUNT + checked(address).removeprefix("gs://")


def checked(address: str) -> str:
    """Return *address* if it is in Cloud Storage.

    :raises InvalidSpecError: it is not
    """
    if not _BUCKET.fullmatch(address):
        raise InvalidSpecError(f"{address!r} is no address in Cloud Storage. Write such as 'gs://bucket/folder'.")
    return address


def address_of(path: str) -> str:
    """Return the ``gs://`` address of a path in a container."""
    return "gs://" + path.removeprefix(MOUNT)


def secret_version(secret: str, project: str) -> str:
    """Return the resource name of a version of a secret in Secret Manager.

    :param secret: ``<secret>/<version>`` in the job's own project, or ``projects/.../secrets/...[/versions/...]``
    :raises InvalidSpecError: it is neither
    """
    if _SECRET_NAME.fullmatch(secret):
        return secret if "/versions/" in secret else f"{secret}/versions/latest"
    if not _SECRET.fullmatch(secret):
        raise InvalidSpecError(
            f"secret_env names {secret!r}. On Vertex AI a secret is one of Secret Manager: write '<secret>/latest', "
            "'<secret>/<version>' or 'projects/<project>/secrets/<secret>'. A worker's variable cannot be passed on."
        )
    name, _, version = secret.partition("/")
    return f"projects/{project}/secrets/{name}/versions/{version}"


def _compact(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
