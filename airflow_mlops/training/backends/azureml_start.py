"""The one shell line that a job of Azure Machine Learning runs: what has to be known before the program starts. Pure.

It is plain POSIX shell. No value of a secret is ever in it, and nothing of the user's is read by the shell or by Azure.

Vendor pages: https://learn.microsoft.com/azure/machine-learning/how-to-train-distributed-gpu and
https://learn.microsoft.com/azure/machine-learning/reference-yaml-core-syntax#binding-inputs-and-outputs-between-steps-in-a-pipeline-job
"""

from __future__ import annotations

import inspect
import re
import shlex

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.training import launch
from airflow_mlops.training.backends import azureml_secrets
from airflow_mlops.training.contract import TrainingSpec

LIMIT = (128 << 10) - 1
"""Bytes of the whole line: it is one argument of a shell, and Linux takes no longer one."""

REPORT = "outputs/mlops_output.json"
"""Where node 0 reports to. Azure keeps the folder ``outputs`` of every job."""

CHECKPOINT_OUTPUT = "mlops_checkpoint"
"""Name of the job's output that checkpoints go to, where Azure itself mounts them."""

READ_SECRETS = inspect.getsource(azureml_secrets)

PYTORCH, MPI, TENSORFLOW = "pytorch", "mpi", "tensorflow"

WORLDS = {
    PYTORCH: ('"$NODE_RANK"', '"$MASTER_ADDR"', '"$MASTER_PORT"'),
    MPI: ('"$OMPI_COMM_WORLD_RANK"', '"${AZ_BATCH_MASTER_NODE%%:*}"', '"${AZ_BATCH_MASTER_NODE##*:}"'),
    TENSORFLOW: (
        r"""$(printf %s "$TF_CONFIG" | sed -n 's/.*"index": *\([0-9]*\).*/\1/p')""",
        r"""$(printf %s "$TF_CONFIG" | sed -n 's/.*"worker": *\[ *"\([^":]*\):.*/\1/p')""",
        r"""$(printf %s "$TF_CONFIG" | sed -n 's/.*"worker": *\[ *"[^":]*:\([0-9]*\)".*/\1/p')""",
    ),
}
"""For each way to distribute: where a node finds its rank, and the host and port of node 0."""

THEIRS = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_RUN_ID",
)
"""What Azure sets for its own tracking. Its token must not stay beside another server's address: it would go there."""

_SECRET = re.compile(r"https://[\w.:-]+/secrets/[A-Za-z0-9-]+(/[0-9a-f]+)?|[A-Za-z0-9-]+/[A-Za-z0-9-]+")
_VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def start_line(spec: TrainingSpec, *, distribution: str, mounted: bool, vault: str) -> str:
    """Return the command of a job.

    :param distribution: one of :data:`WORLDS`
    :param mounted: whether checkpoints go to the output :data:`CHECKPOINT_OUTPUT`
    :param vault: last part of the names of this cloud's key vaults
    :raises InvalidSpecError: it is longer than Linux can start, or a secret is not named as it should be
    """
    steps = ["mkdir -p outputs"]
    if spec.nodes > 1:
        names = (launch.NODE_RANK, launch.MASTER_ADDR, launch.MASTER_PORT)
        steps += [f"{name}={value}" for name, value in zip(names, WORLDS[distribution], strict=True)]
        steps += [f"export {' '.join(names)}"]
    steps += [
        f'if test "${launch.NODE_RANK}" = 0; then {launch.OUTPUT}="$PWD/{REPORT}"; '
        f'else {launch.OUTPUT}="$PWD/mlops_output_${launch.NODE_RANK}"; fi',
        f"export {launch.OUTPUT}",
        f"printf '{{}}' > \"${launch.OUTPUT}\"",
    ]
    if mounted:
        steps += [f'export {launch.CHECKPOINT_DIR}="${{{{outputs.{CHECKPOINT_OUTPUT}}}}}"']
    steps += _tracking(spec) + _secrets(spec, vault)
    line = " && ".join([*steps, f"exec {' '.join(quoted(word) for word in launch.command_line(spec))}"])
    if (size := len(line.encode())) > LIMIT:
        raise InvalidSpecError(
            f"The command of the job is {size} bytes long with its arguments and quotes; at most {LIMIT} can be "
            "started on Linux. Move code into the image, and give large arguments as the address of a file."
        )
    return line


def quoted(word: str) -> str:
    r"""Return *word* as the shell reads it back, whatever is in it, with nothing in it that Azure would replace.

    Azure replaces ``${{...}}`` in a command. In single quotes ``'$''{{'`` is the same to the shell and nothing to it.
    """
    if "\0" in word:
        raise InvalidSpecError(f"The argument {word!r} holds a zero byte, which no program can be given.")
    if shlex.quote(word) == word:
        return word
    return "'" + word.replace("'", r"'\''").replace("${{", "$''{{") + "'"


def _tracking(spec: TrainingSpec) -> list[str]:
    """Return the steps that make our tracking server win over Azure's own; none where the job has none of ours."""
    ours = {key: value for key, value in spec.env.items() if key.startswith("MLFLOW_")}
    if "MLFLOW_TRACKING_URI" not in ours:
        return []
    return [f"unset {' '.join(THEIRS)}", *(f"export {key}={quoted(value)}" for key, value in ours.items())]


def _secrets(spec: TrainingSpec, vault: str) -> list[str]:
    if not spec.secret_env:
        return []
    wanted = [quoted(f"{name}={address(name, secret, vault)}") for name, secret in spec.secret_env.items()]
    python = '"$(command -v python3 || command -v python)"'
    read = f"{python} -c {quoted(READ_SECRETS)} {quoted(f'https://{vault}')} {' '.join(wanted)}"
    return [f"mlops_secrets=$({read})", 'eval "$mlops_secrets"', "unset mlops_secrets"]


def address(variable: str, secret: str, vault: str) -> str:
    """Return the address of a secret: ``<vault>/<name>``, or the identifier that Key Vault itself gives it.

    :raises InvalidSpecError: it is neither, or the variable cannot be one of a shell
    """
    if not _VARIABLE.fullmatch(variable):
        raise InvalidSpecError(f"{variable!r} cannot be the name of a variable.")
    if not _SECRET.fullmatch(secret):
        raise InvalidSpecError(
            f"The secret {secret!r} for {variable!r} is not in a key vault, and Azure has no other place for it. "
            "Write '<vault>/<secret>' or the secret's address in Azure Key Vault."
        )
    holder, _, name = secret.partition("/")
    return secret if secret.startswith("https://") else f"https://{holder}.{vault}/secrets/{name}"
