"""What a sweep tries and decides, whatever the space and whatever became of its trials."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_mlops.core.errors import InvalidSpecError, JobFailedError
from airflow_mlops.training.sampling import propose
from airflow_mlops.training.search import Direction, Search, SweepSummary, Trial, read_trial, require_enough, summarise
from airflow_mlops.training.search_space import Choices, Range, fits, grid, read_space

SPACE = {
    "lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "depth": {"low": 2, "high": 8, "step": 2, "type": "int"},
    "rate": {"low": 0.1, "high": 0.5, "step": 0.1},
    "kind": {"choices": ["gini", None, 3, True]},
}
SLOW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])

whole = st.integers(-1000, 1000)
ranges = st.one_of(
    st.tuples(whole, st.integers(0, 20), st.integers(1, 7)).map(
        lambda t: {"low": t[0], "high": t[0] + t[1] * t[2], "step": t[2], "type": "int"}
    ),
    st.tuples(whole, st.integers(0, 20), st.sampled_from([0.1, 0.25, 0.3, 2])).map(
        lambda t: {"low": t[0], "high": round(t[0] + t[1] * t[2], 6), "step": t[2]}
    ),
    st.tuples(st.floats(1e-6, 1e3), st.floats(1, 1e3), st.booleans()).map(
        lambda t: {"low": t[0], "high": t[0] * t[1], "log": t[2]}
    ),
    st.tuples(st.integers(1, 50), st.integers(0, 500)).map(
        lambda t: {"low": t[0], "high": t[0] + t[1], "log": True, "type": "int"}
    ),
)
scalars = st.one_of(st.none(), st.text(max_size=5), st.integers(2, 99), st.booleans())
choices = st.lists(scalars, min_size=1, max_size=4, unique_by=lambda v: (type(v).__name__, v)).map(
    lambda found: {"choices": found}
)
spaces = st.dictionaries(
    st.from_regex(r"[a-z_][a-z0-9_.-]{0,6}", fullmatch=True), ranges | choices, min_size=1, max_size=4
)
values = st.none() | st.floats(-1e6, 1e6)


def past(search: Search, rounds: int, told: list[float | None]) -> list[Trial]:
    """Return the trials of *rounds* rounds of three, with values taken in turn from *told*."""
    found: list[Trial] = []
    take = itertools.cycle(told)
    for number in range(1, rounds + 1):
        for index, parameters in enumerate(propose(search, found, 3)):
            found.append(Trial(len(found), number, index, parameters, value=next(take)))
    return found


@SLOW
@given(spaces, st.sampled_from(["tpe", "random"]), st.integers(0, 2**40), st.lists(values, min_size=1, max_size=6))
def test_proposals_fit_the_space_and_repeat(
    space: dict[str, Any], sampler: str, seed: int, told: list[float | None]
) -> None:
    """Whatever failed before: all that is asked for is proposed, within the space, as JSON, and again the same."""
    search = Search.of(space, "m", sampler=sampler, seed=seed)
    trials = past(search, 3, told)
    found = propose(search, trials, 4)
    assert len(found) == 4
    assert all(fits(search.space, parameters) for parameters in [*found, *(trial.parameters for trial in trials)])
    assert propose(search, json_trip(trials), 4) == json.loads(json.dumps(found)) == found


def json_trip(trials: list[Trial]) -> list[Trial]:
    """Return the trials as they come back from XCom."""
    return [Trial.from_dict(json.loads(json.dumps(trial.to_dict()))) for trial in trials]


@SLOW
@given(st.integers(0, 1000), st.integers(1, 5))
def test_a_grid_is_tried_once_and_no_more(seed: int, count: int) -> None:
    """Round by round every parameter set comes exactly once, those asked for first; then there are no more."""
    space = {name: SPACE[name] for name in ("depth", "kind")}
    search = Search.of(space, "m", sampler="grid", seed=seed, initial=[{"depth": 6, "kind": None}])
    found: list[dict[str, Any]] = []
    while some := propose(search, [Trial(n, 1, n, p) for n, p in enumerate(found)], count):
        found += some
    assert found[0] == {"depth": 6, "kind": None}
    assert sorted(map(repr, found)) == sorted(map(repr, grid(search.space)))
    assert len(found) == 16


def test_rounds_differ() -> None:
    """A round without anything learned proposes other sets than the one before, and another seed yet others."""
    search = Search.of(SPACE, "m", sampler="random", seed=1)
    first = propose(search, [], 3)
    second = propose(search, [Trial(n, 1, n, p) for n, p in enumerate(first)], 3)
    other = propose(Search.of(SPACE, "m", sampler="random", seed=2), [], 3)
    assert len({json.dumps(parameters) for parameters in first + second + other}) == 9


def test_initial_sets_come_first_and_are_completed() -> None:
    """What is in use is tried before anything else, over as many rounds as it takes; what it leaves out is sampled."""
    initial = [{"lr": 0.01, "depth": 4, "rate": 0.3, "kind": None}, {"depth": 8}, {"kind": 3}]
    search = Search.of(SPACE, "m", initial=initial)
    first = propose(search, [], 2)
    second = propose(search, [Trial(n, 1, n, p) for n, p in enumerate(first)], 2)
    assert first[0] == initial[0]
    assert (first[1]["depth"], second[0]["kind"]) == (8, 3)
    assert fits(search.space, first[1])


def test_tpe_learns_and_takes_failures_for_no_scores() -> None:
    """After four rounds TPE proposes near the optimum, in either direction; what failed does not repel it."""
    for direction, sign in (("minimize", 1), ("maximize", -1)):
        search = Search.of({"x": {"low": -10, "high": 10}}, "m", direction=direction)
        trials: list[Trial] = []
        for number in range(1, 7):
            for index, p in enumerate(propose(search, trials, 5)):
                value = None if index == 4 else sign * (p["x"] - 3) ** 2
                trials.append(Trial(len(trials), number, index, p, value=value))
        found = [p["x"] for p in propose(search, trials, 5)]
        assert sum(abs(x - 3) < 2 for x in found) >= 3, found


def test_trials_that_the_space_no_longer_has_are_left_out() -> None:
    """A space that was narrowed between two rounds, after a clear, does not break the search."""
    search = Search.of({"depth": {"low": 2, "high": 4, "type": "int"}}, "m")
    trials = [Trial(0, 1, 0, {"depth": 9}, value=1.0), Trial(1, 1, 1, {"other": 3}, value=2.0)]
    assert all(fits(search.space, parameters) for parameters in propose(search, trials, 5))


@given(ranges)
def test_values_are_those_inside(entry: dict[str, Any]) -> None:
    """A range that can be counted has exactly its values, from low to high; all others are outside."""
    (found,) = read_space({"x": entry}).values()
    assert isinstance(found, Range)
    assert found.low in found
    assert found.high in found
    assert found.low - 1 not in found
    if found.size() is not None:
        listed = found.values()
        assert len(set(listed)) == len(listed) == found.size()
        assert all(value in found for value in listed)
        assert (listed[0], listed[-1]) == (found.low, found.high)


def test_choices_are_told_apart_by_type() -> None:
    """The text 3 is not the number 3, and true is not 1."""
    found = Choices((3, True))
    assert [value in found for value in (3, "3", True, 1, 3.0)] == [True, False, True, False, False]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "The search space is {}"),
        (None, "The search space is None"),
        ({"a b": {"low": 0, "high": 1}}, "'a b' cannot be a flag"),
        ({"x": 3}, "'x' of the search space is 3. A value that never changes"),
        ({"x": {"low": 0}}, "'x' of the search space has no 'high'"),
        ({"x": {"low": 0, "high": 1, "lgo": True}}, "has no 'lgo': did you mean"),
        ({"x": {"choices": ["a"], "low": 1}}, "has no 'low'"),
        ({"x": {"choices": []}}, "has the choices []"),
        ({"x": {"choices": "ab"}}, "has the choices 'ab'"),
        ({"x": {"choices": [1, [2]]}}, "has the choice [2]"),
        ({"x": {"choices": [1, 2, 1]}}, "has the choice 1 twice"),
        ({"x": {"choices": [float("nan")]}}, "has the choice nan"),
        ({"x": {"low": "0", "high": 1}}, "has low '0'. It is a finite number"),
        ({"x": {"low": 0, "high": float("inf")}}, "has high inf"),
        ({"x": {"low": True, "high": 1}}, "has low True"),
        ({"x": {"low": 2, "high": 1}}, "has low 2.0 above high 1.0"),
        ({"x": {"low": 0, "high": 1, "log": True}}, "needs low above 0"),
        ({"x": {"low": 0, "high": 1, "log": "yes"}}, "has log 'yes'"),
        ({"x": {"low": 1, "high": 2, "log": True, "step": 0.5}}, "has both log and step"),
        ({"x": {"low": 0, "high": 1, "step": 0}}, "has step 0.0"),
        ({"x": {"low": 0, "high": 1, "step": 0.3}}, "never reaches high 1.0"),
        ({"x": {"low": 0, "high": 1, "type": "integer"}}, "has the type 'integer'"),
        ({"x": {"low": 0.5, "high": 2, "type": "int"}}, "has low 0.5. It is a whole number"),
    ],
)
def test_a_wrong_space_is_refused_by_name(space: Any, message: str) -> None:
    """The message names the parameter, the value and what to write instead."""
    with pytest.raises(InvalidSpecError) as error:
        read_space(space)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"metric": ""}, "has no metric"),
        ({"direction": "max"}, "The direction is 'max'"),
        ({"sampler": "tpa"}, "did you mean 'tpe'"),
        ({"initial": [{"dept": 4}]}, "did you mean 'depth'"),
        ({"initial": [{"depth": 3}]}, "The initial value 3 of 'depth'"),
        ({"initial": [4]}, "An initial parameter set is 4"),
    ],
)
def test_a_wrong_search_is_refused(kwargs: dict[str, Any], message: str) -> None:
    """Words and initial sets are checked before anything starts."""
    with pytest.raises(InvalidSpecError, match=message.replace("(", r"\(")):
        Search.of(SPACE, **{"metric": "m", **kwargs})


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"lr": SPACE["lr"]}, "'lr': its values cannot be counted"),
        ({f"p{n}": {"low": 1, "high": 1000, "type": "int"} for n in range(3)}, "1000000000 parameter sets"),
    ],
)
def test_a_grid_without_end_is_refused(space: dict[str, Any], message: str) -> None:
    """A grid needs values that can be counted, and not too many."""
    with pytest.raises(InvalidSpecError, match=message):
        propose(Search.of(space, "m", sampler="grid"), [], 1)


def test_a_round_has_trials() -> None:
    """Nothing cannot be proposed."""
    with pytest.raises(InvalidSpecError, match="at least 1"):
        propose(Search.of(SPACE, "m"), [], 0)


@pytest.mark.parametrize(
    ("result", "value", "why"),
    [
        ({"metrics": {"m": 0.5}, "run_id": "r"}, 0.5, ""),
        ({"metrics": {"m": 1}}, 1.0, ""),
        (None, None, "no result"),
        ({"metrics": {}}, None, "It reported none"),
        ({"metrics": None}, None, "It reported none"),
        ({"metrics": {"mm": 1.0, "a": 2.0}}, None, "did you mean 'mm'? It reported a, mm"),
        ({"metrics": {"m": float("nan")}}, None, "is nan"),
        ({"metrics": {"m": float("-inf")}}, None, "is -inf"),
        ({"metrics": {"m": None}}, None, "is None"),
    ],
)
def test_a_trial_without_a_number_failed(result: Any, value: float | None, why: str) -> None:
    """No result, no such metric or one that is no finite number: a failed trial that says why."""
    found = read_trial(3, (1, 2), {"x": 1}, result, metric="m")
    assert (found.value, found.run_id) == (value, (result or {}).get("run_id", ""))
    assert why in found.why
    assert bool(found.why) == (value is None)


@given(st.lists(values, max_size=12), st.floats(0, 1))
def test_a_sweep_goes_on_while_few_enough_failed(told: list[float | None], most: float) -> None:
    """It stops when nothing finished, or when more than the allowed share failed; never when all finished."""
    trials = [
        Trial(n, 1, n, {"x": n}, value=value, why="" if value is not None else "boom") for n, value in enumerate(told)
    ]
    failed = told.count(None)
    if failed and (failed == len(told) or failed > most * len(told)):
        with pytest.raises(JobFailedError, match=f"{failed} of {len(told)} failed.*boom"):
            require_enough(trials, most)
    else:
        require_enough(trials, most)


@pytest.mark.parametrize("share", [-0.1, 2])
def test_a_share_is_a_share(share: float) -> None:
    """Two is no share: whoever counts trials is told so."""
    with pytest.raises(InvalidSpecError, match="share from 0 to 1"):
        require_enough([], share)


@given(st.lists(values, min_size=1, max_size=12), st.sampled_from(Direction))
def test_the_best_is_the_best(told: list[float | None], direction: Direction) -> None:
    """No finished trial is better than the best one, and of equals it is the first. The summary survives XCom."""
    trials = [Trial(n, 1, n, {"x": n}, value=value) for n, value in enumerate(told)]
    finished = [value for value in told if value is not None]
    if not finished:
        with pytest.raises(JobFailedError, match="no best"):
            summarise("m", direction, trials)
        return
    found = summarise("m", direction, trials, "run")
    value = max(finished) if direction is Direction.MAXIMIZE else min(finished)
    assert found.best == trials[told.index(value)]
    assert (found.finished, found.failed) == (len(finished), told.count(None))
    assert SweepSummary.from_dict(json.loads(json.dumps(found.to_dict()))) == found
