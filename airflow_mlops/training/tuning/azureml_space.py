"""From a search space to the parameter expressions of a sweep of Azure Machine Learning. Pure.

What a sweep cannot honour exactly is refused by the parameter's name. A choice, and a range whose values can be
counted, is given as words; a range without steps as an expression of numbers.

Vendor page: https://learn.microsoft.com/azure/machine-learning/reference-yaml-job-sweep#parameter-expressions
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.training.search_space import INT, Choices, Range, Space
from airflow_mlops.training.tuning.azureml_trial import word_of

RANDOM, GRID, BAYESIAN = "Random", "Grid", "Bayesian"

SUPPORTED = {GRID: ("choice",), BAYESIAN: ("choice", "uniform", "quniform")}
"""The expressions of a sampling algorithm that has not all of them.

https://learn.microsoft.com/azure/machine-learning/how-to-tune-hyperparameters#sampling-the-hyperparameter-space
"""

MOST_CHOICES = 1000
"""Values of a range that are listed one by one; a sweep has no more trials than that."""


def expressions(space: Space, sampling: str) -> dict[str, list[Any]]:
    """Return the expression of each parameter, by the name that it has in Azure.

    :param sampling: :data:`RANDOM`, :data:`GRID` or :data:`BAYESIAN`
    :raises InvalidSpecError: naming the first parameter that Azure cannot honour
    """
    found: dict[str, list[Any]] = {}
    for name, dimension in space.items():
        key = azure_name(name)
        if key in found:
            raise InvalidSpecError(f"Parameter {name!r} and another one are both {key!r} to Azure. Rename one.")
        found[key] = _expression(name, dimension, sampling)
        supported = SUPPORTED.get(sampling, ())
        if supported and found[key][0] not in supported:
            raise InvalidSpecError(
                f"Parameter {name!r} of the search space needs Azure's {found[key][0]!r}, and {sampling} sampling has "
                f"only {', '.join(supported)}. Use sampling 'random', or other values."
            )
    return found


def dimensions(space: Space) -> list[dict[str, Any]]:
    """Return what a trial has to know to read Azure's values back, in the order of the parameters."""
    return [{"name": name, **_bounds(dimension)} for name, dimension in space.items()]


def azure_name(name: str) -> str:
    """Return the name of a parameter in Azure, which takes letters, digits and ``_``."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


def references(space: Space) -> str:
    """Return the words of a command that Azure replaces by the values of a trial."""
    return " ".join(f"${{{{search_space.{azure_name(name)}}}}}" for name in space)


def _bounds(dimension: Range | Choices) -> Mapping[str, Any]:
    if isinstance(dimension, Range) and (dimension.type == INT or dimension.size() is None):
        return {"low": dimension.low, "high": dimension.high, "type": dimension.type}
    return {"choices": list(dimension.values())}


def _expression(name: str, dimension: Range | Choices, sampling: str) -> list[Any]:
    if isinstance(dimension, Choices):
        return _choice(name, dimension.choices)
    low, high, size = dimension.low, dimension.high, dimension.size()
    if size is None:
        return _endless(dimension)
    step = dimension.step or 1
    has_quniform = dimension.type == INT and low % step == 0
    if has_quniform and size > 1 and (sampling == BAYESIAN or size > MOST_CHOICES):
        return ["quniform", [low, high, step]]
    if size <= MOST_CHOICES:
        return _choice(name, dimension.values())
    raise InvalidSpecError(
        f"Parameter {name!r} of the search space has {size} values, and Azure has such steps only between whole "
        f"multiples of a whole step; else at most {MOST_CHOICES} values. Leave out the step, or widen it."
    )


def _endless(dimension: Range) -> list[Any]:
    """Return the expression of a range whose values cannot be counted. Those of a logarithm are its exponents."""
    if not dimension.log:
        return ["uniform", [dimension.low, dimension.high]]
    exponents = [math.log(dimension.low), math.log(dimension.high)]
    return ["qloguniform", [*exponents, 1]] if dimension.type == INT else ["loguniform", exponents]


def _choice(name: str, values: tuple[Any, ...]) -> list[Any]:
    words = [word_of(value) for value in values]
    if "" in words or len(set(words)) < len(words):
        raise InvalidSpecError(
            f"Parameter {name!r} of the search space has the choices {values!r}. To Azure each is a word of a command: "
            "none can be empty, and no two the same."
        )
    return ["choice", [words]]
