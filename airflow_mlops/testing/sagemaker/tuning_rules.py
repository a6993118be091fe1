"""What the service refuses of a tuning job though the model of the request allows it.

https://docs.aws.amazon.com/sagemaker/latest/dg/automatic-model-tuning-define-ranges.html
"""

from __future__ import annotations

import math

from airflow_mlops.testing.sagemaker.problems import Json, invalid

MOST_SEARCHED, MOST_HYPERPARAMETERS = 30, 100


def check_search(body: Json) -> None:
    """Check the request of a new tuning job.

    :raises Problem: it cannot be one
    """
    config, job = body["HyperParameterTuningJobConfig"], body.get("TrainingJobDefinition")
    if job is None:
        raise invalid("A training job definition must be given")
    objective = config.get("HyperParameterTuningJobObjective", {}).get("MetricName")
    if objective not in [one["Name"] for one in job["AlgorithmSpecification"].get("MetricDefinitions", [])]:
        raise invalid(
            "A metric is required for this hyperparameter tuning job objective. Provide a metric in the metric "
            "definitions."
        )
    _check_limits(config)
    _check_ranges(config, job.get("StaticHyperParameters", {}))


def _check_limits(config: Json) -> None:
    limits = config["ResourceLimits"]
    if limits["MaxParallelTrainingJobs"] > limits.get("MaxNumberOfTrainingJobs", math.inf):
        raise invalid("MaxParallelTrainingJobs cannot be greater than MaxNumberOfTrainingJobs")
    if ("StrategyConfig" in config) != (config["Strategy"] == "Hyperband"):
        raise invalid("StrategyConfig is given for the strategy Hyperband, and only for it")
    if config["Strategy"] == "Hyperband" and config.get("TrainingJobEarlyStoppingType", "Off") != "Off":
        raise invalid("TrainingJobEarlyStoppingType must be Off for the strategy Hyperband")


def _check_ranges(config: Json, static: Json) -> None:
    ranges = config.get("ParameterRanges", {})
    numbers = [*ranges.get("IntegerParameterRanges", []), *ranges.get("ContinuousParameterRanges", [])]
    choices = ranges.get("CategoricalParameterRanges", [])
    names = [one["Name"] for one in [*numbers, *choices]]
    if not names or len(names) > MOST_SEARCHED or len(set(names)) < len(names):
        raise invalid(f"1 to {MOST_SEARCHED} different hyperparameters can be searched")
    if both := set(names) & set(static):
        raise invalid(f"Hyperparameter {sorted(both)[0]} is both static and searched")
    if len(names) + len(static) > MOST_HYPERPARAMETERS:
        raise invalid(f"There are more than {MOST_HYPERPARAMETERS} hyperparameters")
    for one in numbers:
        low, high = float(one["MinValue"]), float(one["MaxValue"])
        if low >= high or ("Log" in one.get("ScalingType", "") and low <= 0):
            raise invalid(f"The range of {one['Name']} is invalid: {one}")
    if config["Strategy"] == "Grid":
        _check_grid(config, bool(numbers), math.prod(len(one["Values"]) for one in choices))


def _check_grid(config: Json, has_numbers: bool, size: int) -> None:
    if has_numbers:
        raise invalid("The strategy Grid supports categorical hyperparameters only")
    if config["ResourceLimits"].get("MaxNumberOfTrainingJobs", size) != size:
        raise invalid(f"MaxNumberOfTrainingJobs must be {size}, the number of combinations, or not be given")
