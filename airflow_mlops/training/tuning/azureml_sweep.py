"""From a tuning spec to the description of a sweep job of Azure Machine Learning. Pure.

Vendor page: https://learn.microsoft.com/rest/api/azureml/jobs/create-or-update?view=rest-azureml-2024-10-01#sweepjob
"""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError, close_match
from airflow_mlops.core.features import Feature
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.core.records import Record
from airflow_mlops.training.backends.azureml_marks import marks, written
from airflow_mlops.training.backends.azureml_start import LIMIT, quoted
from airflow_mlops.training.search import Direction
from airflow_mlops.training.search_space import Choices, Space, read_space
from airflow_mlops.training.tuning import azureml_trial
from airflow_mlops.training.tuning.azureml_space import (
    BAYESIAN,
    GRID,
    RANDOM,
    dimensions,
    expressions,
    references,
)
from airflow_mlops.training.tuning.contract import TuningSpec

Json = dict[str, Any]

SAMPLINGS = {"random": RANDOM, "grid": GRID, "bayesian": BAYESIAN}
GOALS = {Direction.MAXIMIZE: "Maximize", Direction.MINIMIZE: "Minimize"}
MOST_TRIALS = 1000
"""https://learn.microsoft.com/azure/machine-learning/how-to-tune-hyperparameters#set-limits-for-your-sweep-job"""

PARAMETERS = "mlops.fixed"
"""Property of a sweep that holds the parameters that are the same for all trials."""

LACKS: Mapping[Feature, str] = {
    Feature.GPUS: "the machine type decides how many there are; set resources.instance_type",
    Feature.CHECKPOINT: "all trials would write to the same place; let each write to 'outputs'",
}

TRIAL = inspect.getsource(azureml_trial)

_OF_TRIALS = ("command", "environmentVariables", "resources", "distribution")
"""Fields of a command job that a sweep has in its trial component."""

_METRIC = re.compile(r"[\w. /-]{1,250}")
"""https://mlflow.org/docs/latest/ml/tracking: what the name of a metric may be."""


@dataclass(frozen=True)
class SweepOptions(Record):
    """What ``TuningSpec.options`` may say.

    :param sampling: ``random``, ``grid`` or ``bayesian``
    :param seed: of random sampling
    :param rule: of random sampling: ``Random`` or ``Sobol``
    :param early_termination: policy as the API has it, such as ``{"policyType": "Bandit", "slackFactor": 0.1}``. It
        goes by what the program itself logs with ``mlflow`` on its way
    """

    sampling: str = "random"
    seed: int | None = None
    rule: str = ""
    early_termination: Mapping[str, Any] = field(default_factory=dict)


def read_options(options: Mapping[str, Any]) -> SweepOptions:
    """Return the options of a search.

    :raises InvalidSpecError: one is unknown, or the sampling is none of Azure's
    """
    found = SweepOptions.from_dict(options)
    if found.sampling not in SAMPLINGS:
        hint = close_match(str(found.sampling), SAMPLINGS)
        raise InvalidSpecError(f"Option 'sampling' is {found.sampling!r}: {hint}It is one of {list(SAMPLINGS)}.")
    if found.sampling != "random" and (found.seed is not None or found.rule):
        raise InvalidSpecError(f"The options 'seed' and 'rule' are of random sampling, not of {found.sampling!r}.")
    return found


def check(spec: TuningSpec) -> None:
    """Refuse a search that Azure cannot have.

    :raises InvalidSpecError: naming what
    """
    for name, value in (("max_trials", spec.max_trials), ("parallel_trials", spec.parallel_trials)):
        if not 1 <= value <= MOST_TRIALS:
            raise InvalidSpecError(f"{name} is {value!r}. A sweep of Azure has 1 to {MOST_TRIALS} trials.")
    if not _METRIC.fullmatch(spec.metric):
        raise InvalidSpecError(
            f"The metric {spec.metric!r} cannot be logged. Use letters, digits, '_', '-', '.', ' ' and '/'."
        )


def sweep_job(spec: TuningSpec, command_job: Json, owner: TaskIdentity) -> Json:
    """Return the properties of the sweep, but for the environment of its trials.

    :param command_job: the properties of a command job that runs what one trial runs, with the fixed parameters
    :raises InvalidSpecError: the search or its space cannot be honoured
    """
    check(spec)
    space, options = read_space(spec.space), read_options(spec.options)
    sampling = SAMPLINGS[options.sampling]
    fixed = written(PARAMETERS, spec.training.parameters) if spec.training.parameters else {}
    own: Json = {
        "jobType": "Sweep",
        "trial": {
            **{key: command_job[key] for key in _OF_TRIALS if key in command_job},
            "command": trial_line(spec.metric, command_job["command"], space),
        },
        "searchSpace": expressions(space, sampling),
        "samplingAlgorithm": {"samplingAlgorithmType": sampling, **_random(options)},
        "objective": {"primaryMetric": spec.metric, "goal": GOALS[Direction.of(spec.direction)]},
        "limits": _limits(spec),
        "earlyTermination": dict(options.early_termination),
        "properties": {**command_job["properties"], **fixed, **marks(spec, owner)},
    }
    around = {key: value for key, value in command_job.items() if key not in _OF_TRIALS}
    return {key: value for key, value in (around | own).items() if value}


def trial_line(metric: str, line: str, space: Space) -> str:
    """Return the command of a trial: our program, which gets Azure's values and runs the user's *line* with them.

    :raises InvalidSpecError: it is longer than Linux can start
    """
    python = '"$(command -v python3 || command -v python)"'
    known = json.dumps(dimensions(space), separators=(",", ":"))
    words = " ".join(quoted(word) for word in (TRIAL, metric, f'{line} "$@"', known))
    command = f"exec {python} -c {words} {references(space)}"
    if (size := len(command.encode()) + _longest(space)) > LIMIT:
        raise InvalidSpecError(
            f"The command of a trial is {size} bytes long with its arguments and quotes; at most {LIMIT} can be "
            "started on Linux. Move code into the image, and give large arguments as the address of a file."
        )
    return command


def _longest(space: Space) -> int:
    """Return how many bytes the values of a trial have at most."""
    texts = [one.choices for one in space.values() if isinstance(one, Choices)]
    return sum(max(len(azureml_trial.word_of(value)) for value in choices) for choices in texts) + 32 * len(space)


def _random(options: SweepOptions) -> Json:
    found = {"seed": options.seed, "rule": options.rule}
    return {key: value for key, value in found.items() if value not in (None, "")}


def _limits(spec: TuningSpec) -> Json:
    found: Json = {
        "jobLimitsType": "Sweep",
        "maxTotalTrials": spec.max_trials,
        "maxConcurrentTrials": min(spec.parallel_trials, spec.max_trials),
    }
    for key, seconds in (("timeout", spec.max_runtime), ("trialTimeout", spec.training.max_runtime)):
        if seconds is not None:
            found[key] = f"PT{max(1, math.ceil(seconds))}S"
    return found
