"""How a trial starts: what a training job has as its entry point, a tuning job can only leave to the image. Pure.

SageMaker starts the image of a trial with the word ``train``. The image's own ``train`` carries out the variable
``MLOPS_START``; all that is to be run is packed into hyperparameters. Searched values become flags of the program, and
when it has ended well, the metric of its report is printed as a line that SageMaker reads from the log.

https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-dockerfile.html
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.training import launch
from airflow_mlops.training.backends import sagemaker_start as starting

START, UNPACK = "MLOPS_START", "MLOPS_UNPACK"
MOST_VARIABLES = 48
OBJECTIVE = "mlops objective "
"""How the line with the metric begins."""

REGEX = OBJECTIVE + r"([-+0-9.eE]+)"

VARIABLES = {
    starting.ROOT_VARIABLE: starting.ROOT,
    UNPACK: starting.UNPACK,
    START: f'set -e; set -- "${UNPACK}" --; {starting.FIRST}',
}
"""Variables of every trial."""

READ = (
    f"v() {{ tr -d '\\n' < \"${starting.ROOT_VARIABLE}/input/config/hyperparameters.json\" | "
    'sed -n "s/.*\\"$1\\" *: *\\"\\([^\\"]*\\)\\".*/\\1/p" | '
    "sed 's/\\\\u003[dD]/=/g;s/\\\\u002[bB]/+/g;s,\\\\/,/,g'; }"
)
"""A function that prints a hyperparameter. A writer of JSON may escape some characters of a choice."""

JOB_NAME = f'export {launch.JOB_NAME}="${{TRAINING_JOB_NAME:-${launch.JOB_NAME}}}"'


def trial_lines(metric: str, searched: Iterable[str]) -> list[str]:
    """Return the lines of shell that add the *searched* values to the words, and print the metric at the end.

    :raises InvalidSpecError: a shell cannot find a metric of that name in a report
    """
    return [JOB_NAME, READ, *(_flag(name) for name in searched), _objective(metric), "trap o EXIT"]


def _flag(name: str) -> str:
    missing = shlex.quote(f"The hyperparameter {name} was not handed over.")
    return (
        f"x=$(v {shlex.quote(_literal(name))}); "
        f'[ -n "$x" ] || {{ echo {missing} >&2; exit 64; }}; set -- "$@" --{name} "$x"'
    )


def _objective(metric: str) -> str:
    """Return a function that prints the metric of the report, the last one of that name, if the program ended well."""
    if not metric.isascii() or not metric.isprintable() or not metric or set(metric) & set("\"\\'"):
        raise InvalidSpecError(
            f"The metric {metric!r} cannot be that of a search on SageMaker. Use plain letters, digits and signs."
        )
    space = "[[:space:]]*"
    find = f's/.*"{_literal(metric)}"{space}:{space}\\([-+0-9.eE][-+0-9.eE]*\\).*/{OBJECTIVE}\\1/p'
    return f'o() {{ [ "$c" != 0 ] || tr -d \'\\r\\n\' < "${launch.OUTPUT}" | sed -n {shlex.quote(find)}; }}'


def _literal(text: str) -> str:
    """Return *text* as an expression of sed that matches nothing else."""
    return re.sub(r"[].*^$/[]", r"\\\g<0>", text)
