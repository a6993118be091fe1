"""Which parameter sets to try next. The only place that knows Optuna.

The study is built anew from the trials so far each time and thrown away: the same trials and seed propose the same.
https://optuna.readthedocs.io/en/stable/tutorial/20_recipes/009_ask_and_tell.html
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.core.extras import extra
from airflow_mlops.training.search import Sampler, Search, Trial
from airflow_mlops.training.search_space import INT, Choices, Range, fits, grid

STARTUP = 10
"""Finished trials after which TPE learns from them, or as many as one round has, if that is less."""


def propose(search: Search, trials: Sequence[Trial], count: int) -> list[dict[str, Any]]:
    """Return the next *count* parameter sets; fewer only from a grid that has no more.

    :param trials: all trials so far, which are over
    """
    if count < 1:
        raise InvalidSpecError(f"A round has {count!r} trials. It has at least 1.")
    if search.sampler is Sampler.GRID:
        return _next_of_grid(search, len(trials), count)
    return _ask(search, trials, count)


def _next_of_grid(search: Search, made: int, count: int) -> list[dict[str, Any]]:
    points = list(grid(search.space))
    random.Random(search.seed).shuffle(points)  # noqa: S311
    first = [point for wanted in search.initial for point in points if wanted.items() <= point.items()]
    ordered = {tuple(point.values()): point for point in first + points}
    return list(islice(ordered.values(), made, made + count))


def _ask(search: Search, trials: Sequence[Trial], count: int) -> list[dict[str, Any]]:
    with extra("sweep"):
        import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: _distribution(dimension) for name, dimension in search.space.items()}
    study = optuna.create_study(direction=search.direction.value, sampler=_sampler(search, len(trials), count))
    for trial in (found for found in trials if fits(search.space, found.parameters)):
        study.add_trial(_told(trial, distributions))
    for initial in search.initial[len(trials) :]:
        study.enqueue_trial(dict(initial))
    return [dict(study.ask(distributions).params) for _ in range(count)]


def _sampler(search: Search, made: int, count: int) -> Any:
    import optuna

    seed = zlib.crc32(f"{search.seed}/{made}".encode())  # another one each round, or all rounds would begin alike
    if search.sampler is Sampler.RANDOM:
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(STARTUP, count), constant_liar=True)


def _told(trial: Trial, distributions: Mapping[str, Any]) -> Any:
    from optuna.trial import TrialState, create_trial

    parameters = {name: trial.parameters[name] for name in distributions}
    state = TrialState.FAIL if trial.value is None else TrialState.COMPLETE
    return create_trial(state=state, value=trial.value, params=parameters, distributions=dict(distributions))


def _distribution(dimension: Range | Choices) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(dimension, Range):
        return CategoricalDistribution(dimension.choices)
    low, high, step, log = dimension.low, dimension.high, dimension.step, dimension.log
    if dimension.type == INT:
        return IntDistribution(int(low), int(high), log=log, step=int(step or 1))
    return FloatDistribution(low, high, log=log, step=step)
