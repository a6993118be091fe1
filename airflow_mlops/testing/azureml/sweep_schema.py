"""The shape of a sweep job of the API ``2024-10-01``, by hand and compact, and what its search space may say.

Written down from https://learn.microsoft.com/azure/templates/microsoft.machinelearningservices/2024-10-01/workspaces/jobs
and https://learn.microsoft.com/azure/machine-learning/reference-yaml-job-sweep#parameter-expressions.
"""

from __future__ import annotations

import re
from typing import Any

from airflow_mlops.testing.azureml.problems import Json, bad
from airflow_mlops.testing.azureml.schema import (
    CHANGEABLE,
    COMMON,
    DISTRIBUTION,
    DURATION,
    FREE,
    INPUT,
    JOB,
    OUTPUT,
    RESOURCES,
    Dict,
    Object,
    OneOf,
    Text,
)
from airflow_mlops.testing.azureml.schema import check as check_shape

_EVERY = {"evaluationInterval": int, "delayEvaluation": int}
POLICY = OneOf(
    "policyType",
    {
        "Bandit": {**_EVERY, "slackAmount": FREE, "slackFactor": FREE},
        "MedianStopping": _EVERY,
        "TruncationSelection": {**_EVERY, "truncationPercentage": int},
    },
)
SAMPLING = OneOf(
    "samplingAlgorithmType",
    {"Random": {"rule": Text(("Random", "Sobol")), "seed": int}, "Grid": {}, "Bayesian": {}},
)
LIMITS = Object(
    {
        "jobLimitsType!": Text(("Sweep",)),
        "maxTotalTrials": int,
        "maxConcurrentTrials": int,
        "timeout": DURATION,
        "trialTimeout": DURATION,
    }
)
TRIAL = Object(
    {
        "codeId": Text(),
        "command!": Text(),
        "environmentId!": Text(),
        "environmentVariables": Dict(Text()),
        "distribution": DISTRIBUTION,
        "resources": RESOURCES,
    }
)
SWEEP: Json = {
    **COMMON,
    "trial!": TRIAL,
    "searchSpace!": Dict(FREE),
    "samplingAlgorithm!": SAMPLING,
    "objective!": Object({"primaryMetric!": Text(), "goal!": Text(("Maximize", "Minimize"))}),
    "limits": LIMITS,
    "earlyTermination": POLICY,
    "queueSettings": Object({"jobTier": Text(("Null", "Spot", "Basic", "Standard", "Premium"))}),
    "inputs": Dict(INPUT),
    "outputs": Dict(OUTPUT),
}
JOBS = OneOf("jobType", {**JOB.kinds, "Sweep": SWEEP})
"""Every job that is served."""

IMMUTABLE = sorted({name.rstrip("!") for kind in JOBS.kinds.values() for name in kind} - set(CHANGEABLE))
"""Properties that a job keeps for ever, by what the service says when one is to be changed."""

NUMBERS = {
    "uniform": 2,
    "loguniform": 2,
    "quniform": 3,
    "qloguniform": 3,
    "randint": 1,
    "normal": 2,
    "lognormal": 2,
    "qnormal": 3,
    "qlognormal": 3,
}
"""How many numbers each expression has; ``choice`` has one list."""

ALLOWED = {"Grid": {"choice"}, "Bayesian": {"choice", "uniform", "quniform"}}
REFERENCE = re.compile(r"\$\{\{\s*search_space\.(\w+)\s*\}\}")


def check(properties: Any) -> None:
    """Check the properties of a job.

    :raises Problem: 400, naming the field
    """
    check_shape(JOBS, properties)
    if properties["jobType"] == "Sweep":
        _check_space(properties)
        _check_limits(properties.get("limits", {}))


def _check_space(properties: Json) -> None:
    space, sampling = properties["searchSpace"], properties["samplingAlgorithm"]["samplingAlgorithmType"]
    for name, expression in space.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise bad(f"The hyperparameter name {name!r} is not valid.")
        _check_expression(name, expression)
        if expression[0] not in ALLOWED.get(sampling, {expression[0]}):
            raise bad(f"{sampling} sampling does not support {expression[0]!r} of {name!r}.")
    for name in REFERENCE.findall(properties["trial"]["command"]):
        if name not in space:
            raise bad(f"The command refers to search_space.{name}, which is not in the search space.")


def _check_expression(name: str, expression: Any) -> None:
    if not (isinstance(expression, list) and len(expression) == 2 and isinstance(expression[1], list)):
        raise bad(f"The expression of {name!r} is {expression!r}, not [type, [arguments]].")
    kind, given = expression
    if kind == "choice":
        if len(given) != 1 or not isinstance(given[0], list) or not given[0]:
            raise bad(f"The choices of {name!r} are {given!r}.")
        return
    if kind not in NUMBERS or len(given) != NUMBERS[kind]:
        raise bad(f"The expression of {name!r} is {kind!r} with {len(given)} arguments.")
    if any(isinstance(one, bool) or not isinstance(one, int | float) for one in given):
        raise bad(f"The arguments of {name!r} are {given!r}, not numbers.")
    if kind.startswith("q") and type(given[-1]) is not int:
        raise bad(f"The smoothing factor of {name!r} is {given[-1]!r}, not an integer.")
    if kind.endswith("uniform") and given[0] >= given[1]:
        raise bad(f"The minimum of {name!r} is not below its maximum.")


def _check_limits(limits: Json) -> None:
    for name in ("maxTotalTrials", "maxConcurrentTrials"):
        if not 1 <= limits.get(name, 1) <= 1000:
            raise bad(f"The field properties.limits.{name} is not between 1 and 1000.")
