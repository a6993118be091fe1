"""From a tuning spec to a HyperparameterTuningJob. Pure. What Vertex AI has no range for is refused by its name.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.hyperparameterTuningJobs
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError, UnsupportedFeatureError, close_match
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.core.records import Record
from airflow_mlops.training.backends import vertex_job as manifest
from airflow_mlops.training.backends.vertex_options import PIPELINE, read_options
from airflow_mlops.training.contract import TrainingSpec
from airflow_mlops.training.launch import flag_value
from airflow_mlops.training.search import Direction
from airflow_mlops.training.search_space import INT, Choices, Range, Space, read_space
from airflow_mlops.training.tuning import vertex_trial
from airflow_mlops.training.tuning.contract import TuningSpec

Json = dict[str, Any]

NAME, BY = "airflow_mlops_search", "airflow-mlops-search"
"""The label that has a search's stable name, and who made it.

Both differ from those of training jobs, so that trials that inherit labels are not taken for twins of one job.
"""

SEARCH = "MLOPS_SEARCH"
"""Variable with what is searched, for the trial and for whoever reads the result."""

ALGORITHMS = ("ALGORITHM_UNSPECIFIED", "GRID_SEARCH", "RANDOM_SEARCH")
MOST_VALUES, CLOSEST = 1000, 1e-10
"""How many values a stepped range may have, and how near to each other they may be."""

TRIAL = inspect.getsource(vertex_trial)


@dataclass(frozen=True)
class StudyOptions(Record):
    """The names of fields are those of the API.

    :param algorithm: how parameters are chosen; by default as Vertex AI does, with Bayesian optimisation
    :param max_failed_trial_count: how many failed trials fail the search; by default all of them, 0 lets Vertex AI
        decide
    """

    algorithm: str = ALGORITHMS[0]
    max_failed_trial_count: int | None = None


def read_study_options(backend: str, options: Mapping[str, Any]) -> StudyOptions:
    """Return the options of a tuning spec.

    :raises InvalidSpecError: one is unknown or wrong
    """
    known = list(StudyOptions.__dataclass_fields__)
    for name in options:
        if name not in known:
            raise InvalidSpecError(
                f"{backend!r} has no tuning option {name!r}: {close_match(name, known)}It has {', '.join(known)}."
            )
    found = StudyOptions(**options)
    if found.algorithm not in ALGORITHMS:
        raise InvalidSpecError(f"Option 'algorithm' is {found.algorithm!r}. It is one of {', '.join(ALGORITHMS)}.")
    if found.max_failed_trial_count is not None and not _is_count(found.max_failed_trial_count, 0):
        raise InvalidSpecError(
            f"Option 'max_failed_trial_count' is {found.max_failed_trial_count!r}, not a number from 0 on."
        )
    return found


def tuning_job(backend: str, spec: TuningSpec, name: str, owner: TaskIdentity, place: manifest.Place) -> Json:
    """Return the HyperparameterTuningJob.

    :raises InvalidSpecError: something cannot be searched, or a trial cannot be a job on Vertex AI
    """
    study, options = read_study_options(backend, spec.options), read_options(backend, spec.training.options)
    if options.mode == PIPELINE:
        raise UnsupportedFeatureError(backend, "options.mode", "trials of a search are CustomJobs, mode 'job'")
    _check_counts(spec)
    body = manifest.custom_job(_trial(spec), name, owner, options, place)
    for pool in body["job_spec"]["worker_pool_specs"]:
        pool["container_spec"] = _wrapped(pool["container_spec"])
    labels = {**options.labels, manifest.MANAGED: BY, NAME: name, manifest.SPEC: manifest.short(spec.digest())}
    failed = study.max_failed_trial_count
    return {
        **{key: value for key, value in body.items() if key != "job_spec"},
        "labels": labels,
        "study_spec": study_spec(spec, study),
        "max_trial_count": spec.max_trials,
        "parallel_trial_count": min(spec.parallel_trials, spec.max_trials),
        "max_failed_trial_count": spec.max_trials if failed is None else failed,
        "trial_job_spec": body["job_spec"],
    }


def study_spec(spec: TuningSpec, options: StudyOptions) -> Json:
    """Return what is searched, and how.

    :raises InvalidSpecError: Vertex AI has no such metric or range; the message names it
    """
    if not spec.metric or any(letter.isspace() for letter in spec.metric):
        raise InvalidSpecError(f"The metric is {spec.metric!r}. On Vertex AI it is a name without spaces.")
    space = read_space(spec.space)
    found: Json = {
        "metrics": [{"metric_id": spec.metric, "goal": Direction.of(spec.direction).upper()}],
        "parameters": [{"parameter_id": key, **parameter(key, dimension)} for key, dimension in space.items()],
        "algorithm": options.algorithm,
    }
    if options.algorithm == "GRID_SEARCH":
        _check_grid(found["parameters"])
    if spec.max_runtime is not None:
        longest = {"max_duration": {"seconds": max(1, math.ceil(spec.max_runtime))}}
        found["study_stopping_config"] = {"should_stop_asap": True, "maximum_runtime_constraint": longest}
    return found


def parameter(name: str, dimension: Range | Choices) -> Json:
    """Return the kind of a parameter, its range and its scale.

    :raises InvalidSpecError: Vertex AI has no such range
    """
    if isinstance(dimension, Choices):
        return {"categorical_value_spec": {"values": _words(name, dimension)}}
    scale = {"scale_type": "UNIT_LOG_SCALE" if dimension.log else "UNIT_LINEAR_SCALE"}
    bounds = {"min_value": dimension.low, "max_value": dimension.high}
    if dimension.type == INT and dimension.step in (None, 1):
        return {"integer_value_spec": bounds, **scale}
    if dimension.step is None:
        return {"double_value_spec": bounds, **scale}
    if (dimension.size() or 0) > MOST_VALUES or dimension.step < CLOSEST:
        raise InvalidSpecError(
            f"Parameter {name!r} has {dimension.size()} values in steps of {dimension.step!r}. Vertex AI takes "
            f"{MOST_VALUES}, {CLOSEST} apart. Leave out the step, or make it longer."
        )
    return {"discrete_value_spec": {"values": list(dimension.values())}, **scale}


def value_of(dimension: Range | Choices, told: Any) -> Any:
    """Return a trial's value as the space has it."""
    if isinstance(dimension, Choices):
        return next((choice for choice in dimension.choices if flag_value(choice) == told), told)
    return round(told) if dimension.type == INT else float(told)


def _words(name: str, dimension: Choices) -> list[str]:
    words = [flag_value(choice) for choice in dimension.choices]
    if "" in words or len(set(words)) < len(words):
        raise InvalidSpecError(
            f"Parameter {name!r} has the choices {list(dimension.choices)!r}. On Vertex AI choices are texts: none may "
            "be empty, and no two may read the same."
        )
    return words


def _check_grid(parameters: list[Json]) -> None:
    for each in parameters:
        if "double_value_spec" in each:
            raise InvalidSpecError(
                f"Parameter {each['parameter_id']!r} has uncountably many values, which 'GRID_SEARCH' cannot try. Give "
                "it a step, or use another algorithm."
            )


def _check_counts(spec: TuningSpec) -> None:
    for name in ("max_trials", "parallel_trials"):
        if not _is_count(getattr(spec, name), 1):
            raise InvalidSpecError(f"{name} is {getattr(spec, name)!r}. It is a number from 1 on.")


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _trial(spec: TuningSpec) -> TrainingSpec:
    """Return what a trial runs, with what it has to know of the search."""
    training = spec.training
    told = {"metric": spec.metric, "direction": spec.direction, "space": spec.space, "fixed": training.parameters}
    text = json.dumps(told, separators=(",", ":"), ensure_ascii=False)
    return replace(training, env={**training.env, SEARCH: text})


def _wrapped(container: Json) -> Json:
    """Return a container that runs its command as a trial."""
    command = ["python3", "-c", TRIAL, *container["command"]]
    return {**container, "command": command, "args": [*container["args"], vertex_trial.MARK]}


def searched(job: Mapping[str, Any]) -> tuple[Json, Space]:
    """Return what :data:`SEARCH` told the trials of a search, and its space."""
    found: Json = json.loads(manifest.variables({"job_spec": job["trial_job_spec"]})[SEARCH])
    return found, read_space(found["space"])
