"""How a program is started in the container: what SageMaker does not do by itself comes in a few lines of shell before.

The image needs ``sh``. What is too long for the fields of a training job is packed into its hyperparameters, which
SageMaker hands to every node as a file; unpacking needs ``sed``, ``base64`` and ``gzip``, which nearly every image has.
Reading secrets needs Python with ``boto3``. Pure. No value of a secret ever comes here, only its name.

Files: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html
Limits: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_AlgorithmSpecification.html
"""

from __future__ import annotations

import base64
import gzip
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.training import launch

ROOT, ROOT_VARIABLE = "/opt/ml", "MLOPS_ROOT"
MASTER_PORT = 29500

LONGEST_WORD, MOST_WORDS = 256, 100
"""Characters of one container argument, and how many there may be."""

LONGEST_VALUE, MOST_VARIABLES = 512, 100
"""Characters of the value of one environment variable, and how many there may be."""

LONGEST_PACK, MOST_PACKS, PACK = 2500, 90, "mlops_pack_"
"""Characters of one hyperparameter, how many are used for what is packed, and how their names begin."""

SECRET_PREFIX = "MLOPS_SECRET_"
"""Before the name of a variable whose value comes from Secrets Manager: the name of the secret."""

FIRST = (
    'while [ "$1" != -- ]; do eval "$1"; shift; done; shift; "$@" & p=$!; trap "kill $p" TERM; c=0; wait $p || c=$?; '
    "while kill -0 $p 2>/dev/null; do c=0; wait $p || c=$?; done; exit $c"
)
"""Carries out every argument up to ``--``, then runs the rest as a program and passes SIGTERM on to it.

The first process of a container does not get signals that it has no handler for; a child does, so that most programs
end at once when the job is stopped, and those that save something first have their 120 seconds.
"""

REPORT = f'mkdir -p "${{{launch.OUTPUT}%/*}}"; : > "${launch.OUTPUT}"'
"""An empty report: if none at all comes back, it was lost."""

HOSTS = (
    f'w() {{ tr -d " \\n" < "${ROOT_VARIABLE}/input/config/resourceconfig.json" | sed "$1"; }}; '
    'h=$(w \'s/.*"hosts":\\[//;s/\\].*//;s/[",]/ /g\'); m=$(w \'s/.*"current_host":"//;s/".*//\')'
)
RANK = (
    f"n=0; for i in $h; do [ $n != 0 ] || export {launch.MASTER_ADDR}=$i; "
    f"[ $i != $m ] || export {launch.NODE_RANK}=$n; n=$((n+1)); done; export {launch.NODES}=$n; [ $n -gt 1 ]"
)
"""The place in the world, from the file that names all hosts in one order and the one that this is."""

SECRETS = (
    'for y in python3 python; do command -v $y >/dev/null && break; done; y=$($y -c "$MLOPS_READ_SECRETS"); eval "$y"'
)
READ_SECRETS = f"""\
import boto3, json, os, shlex
client = boto3.client("secretsmanager")
for name in [name for name in os.environ if name.startswith("{SECRET_PREFIX}")]:
    where, _, key = os.environ[name].partition("#")
    value = client.get_secret_value(SecretId=where)["SecretString"]
    value = str(json.loads(value)[key]) if key else value
    print("export", name[{len(SECRET_PREFIX)}:] + "=" + shlex.quote(value))
"""
"""Prints what sets the variables; the shell that started it carries that out, and nobody else sees it."""

UNPACK = (
    f"x=$(tr ',{{' '\\n\\n' < \"${ROOT_VARIABLE}/input/config/hyperparameters.json\" | "
    f'sed -n \'s/.*"{PACK}\\([0-9]*\\)" *: *"\\([^"]*\\)".*/\\1 \\2/p\' | sort | '
    "sed 's/.* //;s/.u003d/=/g;s,\\\\/,/,g' | tr -d '\\n' | "
    'base64 -d | gzip -dc); eval "$x"'
)
"""Carries out what is packed: lines of shell, which at last set the program and its arguments.

A writer of JSON may escape the ``=`` and ``/`` of base64.
"""

_SECRET = re.compile(r"(secretsmanager:(?P<name>[\w/+=.@-]+)|(?P<arn>arn:[\w-]+:secretsmanager:[^#\s]+))(?P<key>#.+)?")
_VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True)
class Start:
    """What of a training job's request says how to start it.

    :param packed: hyperparameters that hold what is too long for the other fields
    """

    entrypoint: list[str]
    arguments: list[str]
    environment: dict[str, str]
    packed: dict[str, str] = field(default_factory=dict)


def start(
    words: Iterable[str],
    steps: Iterable[str],
    environment: Mapping[str, str],
    *,
    after: Sequence[str] = (),
    most_variables: int = MOST_VARIABLES,
) -> Start:
    """Return how to run *words* after *steps*, lines of shell, with *environment*.

    :param after: lines of shell that may change the words, which are then ``$@``; with them everything is packed
    :raises InvalidSpecError: a variable has an impossible name, or it is too long even when it is packed
    """
    words, steps = list(words), list(steps)
    _refuse_names(environment)
    small = dict(list(_small(environment).items())[:most_variables])
    rest = {key: value for key, value in environment.items() if key not in small}
    entrypoint = ["sh", "-ec", FIRST, "mlops"]
    arguments = [*steps, "--", *words]
    if not rest and not after and len(arguments) <= MOST_WORDS and all(map(_is_word, arguments)):
        return Start(entrypoint, arguments, small)
    exports = [f"export {key}={shlex.quote(value)}" for key, value in rest.items()]
    lines = [*exports, *steps, shlex.join(["set", "--", "packed", "--", *words]), *after]
    return Start(entrypoint, [UNPACK, "--"], small, _packs("\n".join(lines)))


def world_steps(nodes: int) -> list[str]:
    """Return the lines that tell a program its place among several nodes."""
    return [HOSTS, RANK] if nodes > 1 else []


def world_variables(nodes: int) -> dict[str, str]:
    """Return the variables that are known before: all of them for one node."""
    alone = {launch.NODES: "1", launch.NODE_RANK: "0", launch.MASTER_ADDR: "127.0.0.1"} if nodes == 1 else {}
    return {**alone, launch.MASTER_PORT: str(MASTER_PORT)}


def secret_variables(secrets: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that say where the values of *secrets* are, and the program that reads them.

    :raises InvalidSpecError: one names no secret of Secrets Manager
    """
    found = {}
    for variable, secret in secrets.items():
        match = _SECRET.fullmatch(secret)
        if match is None:
            raise InvalidSpecError(
                f"The secret {secret!r} for {variable!r} is not one that a SageMaker job can read, such as a variable "
                "of the worker. Put it into AWS Secrets Manager and write 'secretsmanager:<name>' or its ARN, with "
                "'#<key>' for one value of a JSON object."
            )
        found[SECRET_PREFIX + variable] = (match["name"] or match["arn"]) + (match["key"] or "")
    return {**found, "MLOPS_READ_SECRETS": READ_SECRETS} if found else {}


def _small(environment: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in environment.items() if len(value) <= LONGEST_VALUE}


def _is_word(text: str) -> bool:
    """Say whether SageMaker takes *text* as an argument: a line, not too long."""
    return len(text) <= LONGEST_WORD and len(text.splitlines() or [""]) == 1 and not text.endswith(("\n", "\r"))


def _packs(text: str) -> dict[str, str]:
    packed = base64.b64encode(gzip.compress(text.encode(errors="surrogateescape"), mtime=0)).decode()
    pieces = [packed[start : start + LONGEST_PACK] for start in range(0, len(packed), LONGEST_PACK)]
    if len(pieces) > MOST_PACKS:
        raise InvalidSpecError(
            f"Command, arguments and variables are {len(text)} characters long, {len(packed)} when packed; SageMaker "
            f"takes {LONGEST_PACK * MOST_PACKS}. Put the code into the image, and data into an input."
        )
    return {f"{PACK}{number:02d}": piece for number, piece in enumerate(pieces)}


def _refuse_names(environment: Mapping[str, str]) -> None:
    if bad := [key for key in environment if not _VARIABLE.fullmatch(key)]:
        raise InvalidSpecError(f"{bad[0]!r} cannot be the name of a variable. Use letters, digits and '_'.")
