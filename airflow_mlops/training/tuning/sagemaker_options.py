"""What may be said about a search on SageMaker beyond its spec. Pure.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_HyperParameterTuningJobConfig.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError, close_match
from airflow_mlops.core.records import Record

BAYESIAN, RANDOM, GRID, HYPERBAND = STRATEGIES = ("Bayesian", "Random", "Grid", "Hyperband")


@dataclass(frozen=True)
class SearchOptions(Record):
    """What ``TuningSpec.options`` may say.

    :param strategy: how SageMaker chooses values: ``Bayesian``, ``Random``, ``Grid`` or ``Hyperband``
    :param seed: the same seed makes the choices of two searches more alike; -1 for none
    :param early_stopping: SageMaker stops trials whose objective lines look bad
    :param min_resource: of Hyperband: how many objective lines a trial prints before it may be stopped
    :param max_resource: of Hyperband: how many it prints at most
    :param retries: how often SageMaker itself starts a trial again that its own fault ended
    """

    strategy: str = BAYESIAN
    seed: int = -1
    early_stopping: bool = False
    min_resource: int = 0
    max_resource: int = 0
    retries: int = 0


def read_search_options(options: Mapping[str, Any]) -> SearchOptions:
    """Return the options of a search.

    :raises InvalidSpecError: one is unknown, not of the right kind, or does not go with the strategy
    """
    for name, value in options.items():
        _check(name, value)
    read = SearchOptions.from_dict(options)
    if read.strategy not in STRATEGIES:
        hint = close_match(read.strategy, STRATEGIES)
        raise InvalidSpecError(f"The strategy is {read.strategy!r}: {hint}It is one of {', '.join(STRATEGIES)}.")
    is_hyperband = read.strategy == HYPERBAND
    if is_hyperband != bool(read.min_resource and read.max_resource):
        raise InvalidSpecError(
            f"The strategy is {read.strategy!r}, 'min_resource' {read.min_resource} and 'max_resource' "
            f"{read.max_resource}. Hyperband needs both, above 0; no other strategy takes them."
        )
    if is_hyperband and read.early_stopping:
        raise InvalidSpecError("Hyperband stops trials by itself. Leave 'early_stopping' out.")
    return read


def _check(name: str, value: Any) -> None:
    known = list(SearchOptions.__dataclass_fields__)
    if name not in known:
        hint = close_match(name, known)
        raise InvalidSpecError(f"A search on 'sagemaker' has no option {name!r}: {hint}It has {', '.join(known)}.")
    default = getattr(SearchOptions(), name)
    if type(value) is not type(default):
        raise InvalidSpecError(f"Option {name!r} of a search on 'sagemaker' is {value!r}, not such as {default!r}.")
