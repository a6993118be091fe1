"""What Vertex AI demands of a search beyond its message: counts, names, and ranges that make sense."""

from __future__ import annotations

import itertools
from typing import Any

from airflow_mlops.testing.vertex.problems import Problem, bad
from airflow_mlops.testing.vertex.rules import LABEL_KEY, LABEL_VALUE, LONGEST_NAME, check_custom_job
from airflow_mlops.testing.vertex.schema import message_class

GRID_SEARCH, LOG, REVERSE_LOG = 2, 2, 3
MOST_DISCRETE = 1000
NOT_MODELLED = ("decay_curve_stopping_spec", "median_automated_stopping_spec", "convex_automated_stopping_spec")


def check_tuning_job(job: Any) -> None:
    """Refuse a HyperparameterTuningJob that the service would refuse.

    :raises Problem: what is wrong
    """
    if len(job.display_name) > LONGEST_NAME:
        raise bad(f"display_name has more than {LONGEST_NAME} characters.")
    for key, value in job.labels.items():
        if not LABEL_KEY.fullmatch(key) or not LABEL_VALUE.fullmatch(value):
            raise bad(f"Label {key}={value} is invalid.")
    if not 1 <= job.parallel_trial_count <= job.max_trial_count:
        raise bad("parallel_trial_count must be from 1 to max_trial_count.")
    if not 0 <= job.max_failed_trial_count <= job.max_trial_count:
        raise bad("max_failed_trial_count must be from 0 to max_trial_count.")
    _check_study(job.study_spec)
    trial = message_class("CustomJob").pb()(display_name="trial", job_spec=job.trial_job_spec)
    check_custom_job(trial)


def _check_study(study: Any) -> None:
    for name in NOT_MODELLED:
        if study.HasField(name):
            raise Problem("UNIMPLEMENTED", f"The Vertex AI fake does not model {name}.")
    if study.observation_noise:
        raise bad("observation_noise is not supported by HyperparameterTuningJob.")
    if len(study.metrics) != 1:
        raise Problem("UNIMPLEMENTED", "The Vertex AI fake models searches with one metric.")
    names = [parameter.parameter_id for parameter in study.parameters]
    for name in [study.metrics[0].metric_id, *names]:
        if not name or any(letter.isspace() for letter in name):
            raise bad(f"The ID {name!r} must not contain whitespaces.")
    if len(set(names)) != len(names):
        raise bad("IDs of parameters must be unique.")
    for parameter in study.parameters:
        _check_parameter(parameter, is_grid=study.algorithm == GRID_SEARCH)


def _check_parameter(parameter: Any, *, is_grid: bool) -> None:
    name, kind = parameter.parameter_id, parameter.WhichOneof("parameter_value_spec")
    if kind is None or parameter.conditional_parameter_specs:
        raise Problem("UNIMPLEMENTED", f"The Vertex AI fake needs a value spec without conditions: {name}.")
    spec = getattr(parameter, kind)
    if spec.HasField("default_value"):
        raise bad(f"{name}: default_value is not supported by HyperparameterTuningJob.")
    if kind == "double_value_spec" and is_grid:
        raise bad(f"{name}: grid search needs INTEGER, CATEGORICAL or DISCRETE parameters.")
    if kind == "categorical_value_spec":
        if parameter.scale_type or len(set(spec.values)) != len(spec.values):
            raise bad(f"{name}: categories are unique and have no scale.")
        return
    is_discrete = kind == "discrete_value_spec"
    _check_range(name, list(spec.values) if is_discrete else [spec.min_value, spec.max_value], is_discrete=is_discrete)
    if parameter.scale_type in (LOG, REVERSE_LOG) and (spec.values[0] if is_discrete else spec.min_value) <= 0:
        raise bad(f"{name}: a logarithmic scale needs a strictly positive space.")


def _check_range(name: str, values: list[float], *, is_discrete: bool) -> None:
    gaps = [after - before for before, after in itertools.pairwise(values)]
    if is_discrete and (len(values) > MOST_DISCRETE or any(gap < 1e-10 for gap in gaps)):
        raise bad(f"{name}: at most {MOST_DISCRETE} values in increasing order, at least 1e-10 apart.")
    if min(gaps, default=0) < 0:
        raise bad(f"{name}: min_value is above max_value.")
