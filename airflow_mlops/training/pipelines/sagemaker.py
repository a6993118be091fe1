"""Runs of SageMaker pipelines: started once, found again, stopped. The pipeline itself is the account's own.

The job's name is the token of the request, so that SageMaker itself starts no second execution for it, and the name
that the execution shows, by which it is found later, when SageMaker has forgotten the token. Whether both are of the
same spec is told by a mark in the description.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_StartPipelineExecution.html
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, ClassVar, Self

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import ConflictError, InvalidSpecError, NotFoundError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.platforms.aws import Aws
from airflow_mlops.training.backends.sagemaker_options import DEFAULTS
from airflow_mlops.training.contract import JobHandle, JobState, JobStatus
from airflow_mlops.training.pipelines import marks
from airflow_mlops.training.pipelines.contract import PipelineResult, PipelineSpec
from airflow_mlops.training.pipelines.marks import Mark
from airflow_mlops.training.pipelines.sagemaker_request import (
    LONGEST_DESCRIPTION,
    pipeline_of,
    start_request,
    token_of,
)
from airflow_mlops.training.pipelines.sagemaker_states import execution_status, outputs_of

__all__ = ["SageMakerPipelines"]

Json = dict[str, Any]

PAGE, MOST_PAGES = 100, 10


class SageMakerPipelines:
    """The pipelines of an account and region. A job's id is the ARN of its execution."""

    name: ClassVar[str] = "sagemaker"

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    @classmethod
    def from_connection(cls, info: ConnectionInfo) -> Self:
        """Build it from a connection, the same as for training jobs; nothing is asked yet."""
        return cls(Aws(info, DEFAULTS))

    def submit(self, spec: PipelineSpec, *, name: str, owner: TaskIdentity) -> JobHandle:
        """Start the execution called *name*, or find it.

        :raises InvalidSpecError: an option or parameter is unknown, missing or too long, or the pipeline is not a name
        :raises ConflictError: an execution of that name has another spec
        """
        which, mark = pipeline_of(spec), Mark.of(spec.digest(), "", owner)
        definition = json.loads(self._call("describe_pipeline", **which)["PipelineDefinition"])
        request = start_request(spec, name, definition, mark.write(LONGEST_DESCRIPTION))
        arn = self._started(request["PipelineName"], name)
        if arn is None:
            arn = self._start(request)
        told = self._find(arn) or request  # one that was started a moment ago may not be shown yet
        found = Mark.read(str(told.get("PipelineExecutionDescription", "")))
        if found is None or found.spec != mark.spec:
            raise _other_spec(name)
        return self._handle(arn)

    def locate(self, name: str) -> JobHandle | None:
        """Return the execution called *name*, or ``None``. A search may lag by seconds; a submission does not."""
        for told in self._searched("PipelineExecutionDisplayName", "Equals", name):
            if Mark.read(str(told.get("PipelineExecutionDescription", ""))):
                return self._handle(told["PipelineExecutionArn"])
        return None

    def observe(self, handles: Iterable[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        """Look at one execution directly, with its steps if it failed; at many with the lists of their pipelines."""
        wanted = {handle.job_id: handle for handle in handles}
        if len(wanted) == 1:
            arn, handle = next(iter(wanted.items()))
            told = self._find(arn)
            return {} if told is None else {handle: self._status(told)}
        found: dict[JobHandle, JobStatus] = {}
        for pipeline in dict.fromkeys(_pipeline(arn) for arn in wanted):
            missing = {arn for arn in wanted if _pipeline(arn) == pipeline}
            for told in self._listed(pipeline):
                if (arn := told["PipelineExecutionArn"]) in missing:
                    found[wanted[arn]] = execution_status(told)
                    missing.discard(arn)
                if not missing:
                    break
        return found

    def cancel(self, handle: JobHandle) -> None:
        """Order the end of an execution that goes on: SageMaker stops the steps that run, and starts no other."""
        if not _can_stop(self._find(handle.job_id)):
            return
        try:
            token = token_of(f"stop {handle.job_id}")
            self._call("stop_pipeline_execution", PipelineExecutionArn=handle.job_id, ClientRequestToken=token)
        except (InvalidSpecError, ConflictError):
            if _can_stop(self._find(handle.job_id)):
                raise

    def collect(self, handle: JobHandle) -> PipelineResult:
        """Return the states of its steps, and what they tell of what they made, as ``<step>.<what>``.

        :raises InvalidSpecError: it has not succeeded
        """
        told = self._find(handle.job_id) or {}
        if execution_status(told).state is not JobState.SUCCEEDED:
            called = told.get("PipelineExecutionDisplayName") or handle.job_id
            word = told.get("PipelineExecutionStatus")
            raise InvalidSpecError(f"The execution {called!r} has not succeeded: it is {word!r}.")
        steps = self._steps(handle.job_id)
        states = {str(step["StepName"]): str(step.get("StepStatus", "")) for step in steps}
        return PipelineResult(handle, states, outputs_of(steps))

    def managed(self) -> Iterator[tuple[JobHandle, TaskIdentity]]:
        """Yield every execution with a mark, newest first."""
        for told in self._searched("PipelineExecutionDescription", "Contains", marks.WORD):
            mark = Mark.read(str(told.get("PipelineExecutionDescription", "")))
            if mark and mark.owner:
                yield self._handle(told["PipelineExecutionArn"]), mark.owner

    def _started(self, pipeline: str, name: str) -> str | None:
        """Return the execution of that name: among the newest of the pipeline, or one of another pipeline."""
        shown = (one for one in self._listed(pipeline) if one.get("PipelineExecutionDisplayName") == name)
        if found := next(shown, None):
            return str(found["PipelineExecutionArn"])
        located = self.locate(name)
        return located.job_id if located else None

    def _start(self, request: Json) -> str:
        try:
            return str(self._call("start_pipeline_execution", **request)["PipelineExecutionArn"])
        except ConflictError as error:  # the token was used for another request
            raise _other_spec(request["PipelineExecutionDisplayName"]) from error

    def _status(self, told: Json) -> JobStatus:
        status = execution_status(told)
        if status.state is not JobState.FAILED:
            return status
        return execution_status(told, self._steps(told["PipelineExecutionArn"]))

    def _find(self, arn: str) -> Json | None:
        if ":" not in arn:  # not an ARN: no execution
            return None
        try:
            return self._call("describe_pipeline_execution", PipelineExecutionArn=arn)
        except NotFoundError:
            return None

    def _steps(self, arn: str) -> list[Json]:
        query = {"PipelineExecutionArn": arn, "SortOrder": "Ascending"}
        return [
            step
            for page in self._pages("list_pipeline_execution_steps", "PipelineExecutionSteps", **query)
            for step in page
        ]

    def _listed(self, pipeline: str) -> Iterator[Json]:
        """Yield the newest executions of a pipeline."""
        query = {"PipelineName": pipeline, "SortBy": "CreationTime", "SortOrder": "Descending"}
        pages = self._pages("list_pipeline_executions", "PipelineExecutionSummaries", **query)
        for page in islice(pages, MOST_PAGES):
            yield from page

    def _searched(self, field: str, operator: str, value: str) -> Iterator[Json]:
        wanted = {"Filters": [{"Name": field, "Operator": operator, "Value": value}]}
        for page in self._pages("search", "Results", Resource="PipelineExecution", SearchExpression=wanted):
            yield from (found["PipelineExecution"] for found in page)

    def _call(self, operation: str, **request: Any) -> Json:
        return self._aws.call("sagemaker", operation, region=_region(request), **request)

    def _pages(self, operation: str, key: str, **request: Any) -> Iterator[list[Json]]:
        return self._aws.pages("sagemaker", operation, key, region=_region(request), MaxResults=PAGE, **request)

    def _handle(self, arn: str) -> JobHandle:
        return JobHandle(self.name, arn)


def _other_spec(name: str) -> ConflictError:
    return ConflictError(f"The execution {name!r} exists with another spec. Clear the task to start a new one.")


def _pipeline(arn: str) -> str:
    """Return the ARN of an execution's pipeline."""
    return arn.partition("/execution/")[0]


def _region(request: Mapping[str, Any]) -> str:
    """Return the region in the ARN that a request is about; empty without one."""
    arn = str(request.get("PipelineExecutionArn") or request.get("PipelineName") or "")
    return arn.split(":")[3] if arn.startswith("arn:") else ""


def _can_stop(told: Json | None) -> bool:
    return told is not None and told.get("PipelineExecutionStatus") == "Executing"
