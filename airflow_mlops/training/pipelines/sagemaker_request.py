"""From a pipeline spec to the request that starts an execution. Pure; everything is checked before anything starts.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_StartPipelineExecution.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError, close_match
from airflow_mlops.core.identity import text_digest
from airflow_mlops.core.records import Record
from airflow_mlops.training.launch import flag_value
from airflow_mlops.training.pipelines.contract import PipelineSpec

Json = dict[str, Any]

LONGEST_DESCRIPTION, LONGEST_VALUE = 3072, 1024


@dataclass(frozen=True)
class RunOptions(Record):
    """What ``PipelineSpec.options`` may say.

    :param parallel_steps: how many steps may run at a time; 0 leaves it to the pipeline
    """

    parallel_steps: int = 0


def pipeline_of(spec: PipelineSpec) -> Json:
    """Return the fields that name the pipeline, ``<name>`` or ``<name>@<version>``.

    :raises InvalidSpecError: it is a definition, or the version is no number
    """
    if not isinstance(spec.pipeline, str) or not spec.pipeline:
        raise InvalidSpecError(
            "A pipeline of SageMaker is run by its name, such as 'churn' or 'churn@3', not by its definition. "
            "Create it with the SageMaker SDK first."
        )
    name, _, version = spec.pipeline.partition("@")
    if version and not version.isdigit():
        raise InvalidSpecError(f"The version {version!r} of the pipeline {name!r} is not a number.")
    return {"PipelineName": name} | ({"PipelineVersionId": int(version)} if version else {})


def start_request(spec: PipelineSpec, name: str, definition: Json, description: str) -> Json:
    """Return the fields of ``StartPipelineExecution``.

    :param definition: of the pipeline, as the account has it
    :raises InvalidSpecError: an option or parameter is unknown, missing or too long
    """
    options = RunOptions.from_dict(spec.options)
    limits = {"ParallelismConfiguration": {"MaxParallelExecutionSteps": options.parallel_steps}}
    return {
        **pipeline_of(spec),
        "PipelineExecutionDisplayName": name,
        "PipelineExecutionDescription": description,
        "ClientRequestToken": token_of(name),
        "PipelineParameters": [{"Name": key, "Value": value} for key, value in _parameters(spec, definition).items()],
        **(limits if options.parallel_steps else {}),
    }


def token_of(text: str) -> str:
    """Return the token of a request, the same on every try."""
    return text_digest(text).removeprefix("sha256:")


def _parameters(spec: PipelineSpec, definition: Json) -> dict[str, str]:
    """Return the parameters as text.

    :raises InvalidSpecError: one is unknown, missing or too long
    """
    declared = {one["Name"]: one for one in definition.get("Parameters") or ()}
    for key in spec.parameters:
        if key not in declared:
            raise InvalidSpecError(
                f"Pipeline {spec.pipeline!r} has no parameter {key!r}: {close_match(key, declared)}"
                f"It has {', '.join(declared) or 'none'}."
            )
    missing = [key for key, one in declared.items() if "DefaultValue" not in one and key not in spec.parameters]
    if missing:
        raise InvalidSpecError(f"Pipeline {spec.pipeline!r} needs the parameter {missing[0]!r}, which has no default.")
    values = {key: flag_value(value) for key, value in spec.parameters.items()}
    if long := [key for key, value in values.items() if len(value) > LONGEST_VALUE]:
        raise InvalidSpecError(f"The parameter {long[0]!r} is too long: SageMaker takes {LONGEST_VALUE} characters.")
    return values
