"""From a search's spec to the request that starts a tuning job, and back from the job's description. Pure.

The trials are what a training job of the same spec would be. What has to come back with one look, the digest of the
spec, its fixed parameters and its space, is in the hyperparameters that all trials share.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateHyperParameterTuningJob.html
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError, UnsupportedFeatureError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.training.backends import sagemaker_job as training
from airflow_mlops.training.backends import sagemaker_start as starting
from airflow_mlops.training.backends.sagemaker_options import SageMakerOptions
from airflow_mlops.training.backends.sagemaker_tags import MARK
from airflow_mlops.training.search_space import Choices, Space, read_space
from airflow_mlops.training.tuning import sagemaker_start as trial
from airflow_mlops.training.tuning.contract import TuningSpec
from airflow_mlops.training.tuning.sagemaker_options import GRID, HYPERBAND, SearchOptions
from airflow_mlops.training.tuning.sagemaker_space import ranges_of

Json = dict[str, Any]

LONGEST_NAME = 32
SHORTEST_RUN, LONGEST_RUN = 120, 15_768_000
MOST_METRICS = 40
TOLD = "mlops_search_"
"""Hyperparameters: the fixed parameters and the space as JSON, in pieces."""

SEARCH_MARK = "airflow-mlops-search"
"""A tag on every search of ours. SageMaker puts it on the trials, too, so it is not the mark of training jobs."""

KEPT = (
    *("RoleArn", "Environment", "InputDataConfig", "OutputDataConfig", "ResourceConfig", "StoppingCondition"),
    *("VpcConfig", "EnableManagedSpotTraining", "EnableInterContainerTrafficEncryption", "EnableNetworkIsolation"),
)
"""Fields that a training job and the definition of a trial have in common."""


def search_request(
    spec: TuningSpec, name: str, owner: TaskIdentity, options: SageMakerOptions, further: SearchOptions, *, region: str
) -> Json:
    """Return the fields of ``CreateHyperParameterTuningJob``.

    :raises InvalidSpecError: the name or the spec cannot be a tuning job
    """
    if len(name) > LONGEST_NAME:
        raise InvalidSpecError(f"The name {name!r} cannot be a tuning job: it has more than {LONGEST_NAME} characters.")
    _refuse(spec, options)
    space = read_space(spec.space)
    lines = trial.trial_lines(spec.metric, space)
    job = training.job_request(spec.training, name, owner, options, region, starter=partial(_start, lines))
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": _config(spec, space, further),
        "TrainingJobDefinition": _definition(spec, job, len(space), further),
        "Tags": [{**tag, "Key": SEARCH_MARK} if tag["Key"] == MARK else tag for tag in job["Tags"]],
    }


def digest_of(job: Mapping[str, Any]) -> str:
    """Return the digest of the spec that a search was made from; empty if it is not ours."""
    return str(_static(job).get(training.SPEC, ""))


def told_of(job: Mapping[str, Any]) -> tuple[dict[str, Any], Space]:
    """Return the fixed parameters and the space of a search of ours."""
    static = _static(job)
    told = json.loads("".join(static[key] for key in sorted(static) if key.startswith(TOLD)) or "{}")
    space = read_space(told["space"]) if told else {}
    return told.get("parameters", {}), space


def _static(job: Mapping[str, Any]) -> Json:
    return (job.get("TrainingJobDefinition") or {}).get("StaticHyperParameters") or {}


def _refuse(spec: TuningSpec, options: SageMakerOptions) -> None:
    if spec.training.checkpoint:
        why = "all trials of a search would write to one place"
        raise UnsupportedFeatureError("sagemaker", "checkpoint", why)
    if options.keep_alive:
        raise UnsupportedFeatureError("sagemaker", "keep_alive", "a search gives its machines back by itself")
    if spec.max_trials < 1 or spec.parallel_trials < 1:
        raise InvalidSpecError(
            f"max_trials is {spec.max_trials} and parallel_trials {spec.parallel_trials}. Both are at least 1."
        )
    if spec.max_runtime is not None and not SHORTEST_RUN <= spec.max_runtime <= LONGEST_RUN:
        raise InvalidSpecError(
            f"The max_runtime of the search is {spec.max_runtime} s. SageMaker takes {SHORTEST_RUN} to {LONGEST_RUN} s."
        )


def _start(
    lines: Sequence[str], words: Iterable[str], steps: Iterable[str], environment: Mapping[str, str]
) -> starting.Start:
    """Return the start of a trial. What its own lines need comes first: SageMaker takes few variables."""
    ordered = dict(sorted(environment.items(), key=lambda item: not item[0].startswith("MLOPS_")))
    most = trial.MOST_VARIABLES - len(trial.VARIABLES)
    return starting.start(words, steps, ordered, after=lines, most_variables=most)


def _config(spec: TuningSpec, space: Space, further: SearchOptions) -> Json:
    resource = {"MinResource": further.min_resource, "MaxResource": further.max_resource}
    found = {
        "Strategy": further.strategy,
        "HyperParameterTuningJobObjective": {"Type": spec.direction.capitalize(), "MetricName": spec.metric},
        "ResourceLimits": _limits(spec, space, further),
        "ParameterRanges": ranges_of(space),
        "TrainingJobEarlyStoppingType": "Auto" if further.early_stopping else "Off",
    }
    if further.strategy == HYPERBAND:
        found["StrategyConfig"] = {"HyperbandStrategyConfig": resource}
    return found if further.seed < 0 else {**found, "RandomSeed": further.seed}


def _limits(spec: TuningSpec, space: Space, further: SearchOptions) -> Json:
    count = _grid_size(spec, space) if further.strategy == GRID else spec.max_trials
    found = {"MaxNumberOfTrainingJobs": count, "MaxParallelTrainingJobs": min(count, spec.parallel_trials)}
    return found if spec.max_runtime is None else {**found, "MaxRuntimeInSeconds": math.ceil(spec.max_runtime)}


def _grid_size(spec: TuningSpec, space: Space) -> int:
    """Return how many combinations there are: SageMaker's Grid tries all of them or none."""
    for name, dimension in space.items():
        if not isinstance(dimension, Choices):
            raise UnsupportedFeatureError("sagemaker", name, "in a search, the strategy 'Grid' takes choices only")
    count = math.prod(dimension.size() or 0 for dimension in space.values())
    if count > spec.max_trials:
        raise InvalidSpecError(
            f"The grid has {count} combinations and max_trials is {spec.max_trials}. SageMaker tries all of a grid: "
            "raise max_trials, or choose the strategy 'Random'."
        )
    return count


def _definition(spec: TuningSpec, job: Json, searched: int, further: SearchOptions) -> Json:
    algorithm = {key: job["AlgorithmSpecification"][key] for key in ("TrainingImage", "TrainingInputMode")}
    given = job["AlgorithmSpecification"].get("MetricDefinitions", [])
    metrics = [one for one in given if one["Name"] != spec.metric] + [{"Name": spec.metric, "Regex": trial.REGEX}]
    if len(metrics) > MOST_METRICS:
        raise InvalidSpecError(f"There are {len(metrics)} metric definitions. A search takes {MOST_METRICS}.")
    found = {
        **{key: job[key] for key in KEPT if key in job},
        "AlgorithmSpecification": {**algorithm, "MetricDefinitions": metrics},
        "StaticHyperParameters": _hyperparameters(spec, job, searched),
        "Environment": {**job["Environment"], **trial.VARIABLES},
    }
    return {**found, "RetryStrategy": {"MaximumRetryAttempts": further.retries}} if further.retries else found


def _hyperparameters(spec: TuningSpec, job: Json, searched: int) -> dict[str, str]:
    told = json.dumps({"parameters": spec.training.to_dict()["parameters"], "space": spec.to_dict()["space"]})
    size = starting.LONGEST_PACK
    pieces = {f"{TOLD}{start // size:02d}": told[start : start + size] for start in range(0, len(told), size)}
    found = {**job["HyperParameters"], training.SPEC: spec.digest(), **pieces}
    if len(found) + searched + 1 > training.MOST_HYPERPARAMETERS:
        raise InvalidSpecError(
            f"Command, inputs and parameters need {len(found)} hyperparameters beside the {searched} searched ones. "
            f"SageMaker takes {training.MOST_HYPERPARAMETERS} in all: put the code into the image."
        )
    return found
