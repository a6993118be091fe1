"""From a search space to SageMaker's ranges, and from the words it hands out back to values. Pure.

SageMaker knows whole numbers, numbers and texts, and no steps. A searched value reaches the program through a JSON
file that a shell has to read, so names and choices are plain words. What is more than that is refused by name.

https://docs.aws.amazon.com/sagemaker/latest/dg/automatic-model-tuning-define-ranges.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from airflow_mlops.core.errors import UnsupportedFeatureError
from airflow_mlops.training.launch import flag_value
from airflow_mlops.training.search_space import INT, Choices, Range, Space

Json = dict[str, Any]

MOST_SEARCHED, MOST_CHOICES, LONGEST = 30, 30, 256
RESERVED = ("_", "mlops_", "sagemaker_")
"""How the names of hyperparameters begin that SageMaker and this package set."""

_NAME = re.compile(r"[A-Za-z][\w.-]*", re.ASCII)
_WORD = re.compile(r"[\w .,:;+\-/=@%()]+", re.ASCII)


def ranges_of(space: Space) -> Json:
    """Return the ``ParameterRanges`` of a space.

    :raises UnsupportedFeatureError: SageMaker cannot search a parameter like that; the message names it
    """
    if len(space) > MOST_SEARCHED:
        raise UnsupportedFeatureError("sagemaker", "space", f"it searches at most {MOST_SEARCHED} parameters")
    found: Json = {}
    for name, dimension in space.items():
        _check_name(name)
        if isinstance(dimension, Choices):
            found.setdefault("CategoricalParameterRanges", []).append(_categorical(name, dimension))
        else:
            kind = "IntegerParameterRanges" if dimension.type == INT else "ContinuousParameterRanges"
            found.setdefault(kind, []).append(_numbers(name, dimension))
    return found


def values_of(space: Space, words: Mapping[str, str]) -> dict[str, Any]:
    """Return the values that a trial was given, as the space has them."""
    return {name: _value(space[name], words[name]) for name in space if name in words}


def _value(dimension: Range | Choices, word: str) -> Any:
    if isinstance(dimension, Choices):
        return next((choice for choice in dimension.choices if flag_value(choice) == word), word)
    return int(word) if dimension.type == INT else float(word)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name.startswith(RESERVED) or len(name) > LONGEST:
        raise _refused(name, f"the name of one is at most {LONGEST} letters, digits, '_', '-' and '.', and it does "
                       f"not begin with {' or '.join(RESERVED[1:])}")  # fmt: skip


def _categorical(name: str, dimension: Choices) -> Json:
    for choice in dimension.choices:
        if choice is None or isinstance(choice, bool):
            raise _refused(name, f"it has no choice like {flag_value(choice)}, only texts and numbers")
        if not _WORD.fullmatch(word := flag_value(choice)) or len(word) > LONGEST:
            raise _refused(
                name, f"the choice {word!r} is not 1 to {LONGEST} plain letters, digits and '_ .,:;+-/=@%()'"
            )
    words = [flag_value(choice) for choice in dimension.choices]
    if len(words) > MOST_CHOICES or len(set(words)) < len(words):
        raise _refused(name, f"it takes at most {MOST_CHOICES} choices, and no number that is also there as a text")
    return {"Name": name, "Values": words}


def _numbers(name: str, dimension: Range) -> Json:
    if dimension.step not in (None, 1) or (dimension.step is not None and dimension.type != INT):
        raise _refused(name, f"it has no 'step' such as {dimension.step!r}; give 'choices' instead")
    if dimension.low == dimension.high:
        raise _refused(name, "low and high are the same; give it as a fixed parameter")
    scaling = "Logarithmic" if dimension.log else "Linear"
    low, high = (format(Decimal(str(value)), "f") for value in (dimension.low, dimension.high))
    return {"Name": name, "MinValue": low, "MaxValue": high, "ScalingType": scaling}


def _refused(name: str, why: str) -> UnsupportedFeatureError:
    return UnsupportedFeatureError("sagemaker", name, f"in a search, {why}")
