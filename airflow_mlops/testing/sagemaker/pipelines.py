"""The requests about pipelines, and executions whose steps are training jobs, one after the other.

Steps of type ``Training`` are modelled, with ``{"Get": "Parameters.<name>"}`` anywhere in their arguments.

https://docs.aws.amazon.com/sagemaker/latest/dg/build-and-manage-pipelines-define.html
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from datetime import UTC, datetime
from typing import Any

from airflow_mlops.testing.sagemaker.lists import matches, page
from airflow_mlops.testing.sagemaker.problems import Json, Problem, invalid
from airflow_mlops.testing.sagemaker.run import OVER
from airflow_mlops.testing.sagemaker.training import Training
from airflow_mlops.testing.sagemaker.world import ACCOUNT

WORDS = {"Completed": "Succeeded", "Failed": "Failed", "Stopped": "Stopped"}


class Execution:
    """One execution: ``told`` is its description, kept up to date."""

    def __init__(self, training: Training, definition: Json, parameters: Json, told: Json) -> None:
        self._training, self._parameters, self.told = training, parameters, told
        self.steps: list[Json] = []
        self._todo = definition["Steps"]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._enter("Executing")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Order the end: the step that runs is stopped, and no other begins."""
        self._enter("Stopping")
        self._stop.set()

    def wait(self) -> None:
        """Wait for its end."""
        self._thread.join(30)

    def _live(self) -> None:
        for step in self._todo:
            if self._stop.is_set():
                break
            if (word := self._work(step)) != "Succeeded":
                self._enter(word, f"Step failure: One or multiple steps failed: {step['Name']}" * (word == "Failed"))
                return
        self._enter("Stopped" if self._stop.is_set() else "Succeeded")

    def _work(self, step: Json) -> str:
        execution = self.told["PipelineExecutionArn"].rpartition("/")[2]
        name = f"pipelines-{execution}-{step['Name']}"[:63]
        arguments = _resolved(step["Arguments"], self._parameters)
        arn = self._training.create_training_job({**arguments, "TrainingJobName": name})["TrainingJobArn"]
        shown: Json = {"StepName": step["Name"], "StartTime": datetime.now(UTC), "StepStatus": "Executing"}
        shown["Metadata"] = {"TrainingJob": {"Arn": arn}}
        self.steps.append(shown)
        run, is_stopped = self._training.runs[name], False
        while run.job["TrainingJobStatus"] not in OVER:
            if self._stop.is_set() and not is_stopped:
                run.order("stop")
                is_stopped = True
            time.sleep(0.02)
        shown |= {"StepStatus": WORDS[run.job["TrainingJobStatus"]], "EndTime": datetime.now(UTC)}
        if reason := run.job.get("FailureReason"):
            shown["FailureReason"] = f"ClientError: {reason}"
        return str(shown["StepStatus"])

    def _enter(self, word: str, reason: str = "") -> None:
        self.told |= {"PipelineExecutionStatus": word, "LastModifiedTime": datetime.now(UTC)}
        if reason:
            self.told["FailureReason"] = reason


class Pipelines:
    """The pipelines of one region. A token that was seen before gives the execution that it started."""

    def __init__(self, training: Training, region: str) -> None:
        self._training, self._region = training, region
        self._known: dict[str, Json] = {}
        self.executions: dict[str, Execution] = {}
        self.tokens: dict[str, tuple[Json, str]] = {}
        self._lock = threading.Lock()

    def add(self, name: str, definition: Json) -> None:
        """Keep a pipeline."""
        arn = f"arn:aws:sagemaker:{self._region}:{ACCOUNT}:pipeline/{name}"
        self._known[name] = {"PipelineArn": arn, "PipelineName": name, "PipelineDefinition": json.dumps(definition)}

    def describe_pipeline(self, body: Json) -> Json:
        """Return a pipeline with its definition."""
        return {**self._pipeline(body["PipelineName"]), "PipelineStatus": "Active"}

    def start_pipeline_execution(self, body: Json) -> Json:
        """Start an execution, once for each token."""
        pipeline = self._pipeline(body["PipelineName"])
        definition = json.loads(pipeline["PipelineDefinition"])
        with self._lock:
            token = body["ClientRequestToken"]
            if token in self.tokens:
                before, arn = self.tokens[token]
                if before != body:
                    raise Problem("ConflictException", "The token was used for another request.")
                return {"PipelineExecutionArn": arn}
            parameters = _parameters(definition, body.get("PipelineParameters", []))
            number = hashlib.sha256(token.encode()).hexdigest()[:12]
            arn = f"{pipeline['PipelineArn']}/execution/{number}"
            told = {"PipelineArn": pipeline["PipelineArn"], "PipelineExecutionArn": arn}
            told |= {key: body[key] for key in body if key.startswith("PipelineExecution")}
            told["CreationTime"] = datetime.now(UTC)
            self.executions[arn] = Execution(self._training, definition, parameters, told)
            self.tokens[token] = (body, arn)
        self.executions[arn].start()
        return {"PipelineExecutionArn": arn}

    def describe_pipeline_execution(self, body: Json) -> Json:
        """Return one execution."""
        return dict(self._execution(body["PipelineExecutionArn"]).told)

    def list_pipeline_executions(self, body: Json) -> Json:
        """Return the executions of a pipeline, newest first unless told otherwise."""
        arn = self._pipeline(body["PipelineName"])["PipelineArn"]
        found = [dict(one.told) for one in self.executions.values() if one.told["PipelineArn"] == arn]
        found.sort(key=lambda told: told["CreationTime"], reverse=body.get("SortOrder") != "Ascending")
        names = ("Arn", "Status", "Description", "DisplayName")
        kept = [{f"PipelineExecution{key}": told.get(f"PipelineExecution{key}") for key in names} for told in found]
        for summary, told in zip(kept, found, strict=True):
            summary |= {"StartTime": told["CreationTime"], "PipelineExecutionFailureReason": told.get("FailureReason")}
        return page(kept, body, "PipelineExecutionSummaries")

    def list_pipeline_execution_steps(self, body: Json) -> Json:
        """Return the steps that have begun, newest first unless told otherwise."""
        steps = [dict(step) for step in self._execution(body["PipelineExecutionArn"]).steps]
        order = 1 if body.get("SortOrder") == "Ascending" else -1
        return page(steps[::order], body, "PipelineExecutionSteps")

    def stop_pipeline_execution(self, body: Json) -> Json:
        """Order the end of an execution that goes on."""
        execution = self._execution(body["PipelineExecutionArn"])
        if execution.told["PipelineExecutionStatus"] != "Executing":
            status = execution.told["PipelineExecutionStatus"]
            raise invalid(f"Pipeline execution with ARN {body['PipelineExecutionArn']} is in {status} status.")
        execution.stop()
        return {"PipelineExecutionArn": body["PipelineExecutionArn"]}

    def search(self, body: Json) -> list[Json]:
        """Return the executions that a search finds, newest first."""
        empty = {"PipelineExecutionDescription": None, "PipelineExecutionDisplayName": None}
        found = [{**empty, **one.told} for one in self.executions.values()]
        kept = [told for told in found if matches(told, body["SearchExpression"])]
        return sorted(kept, key=lambda told: told["LastModifiedTime"], reverse=True)

    def _pipeline(self, name: str) -> Json:
        if name.rpartition("/")[2] not in self._known:
            raise Problem("ResourceNotFound", f"Pipeline '{name}' does not exist.")
        return self._known[name.rpartition("/")[2]]

    def _execution(self, arn: str) -> Execution:
        if arn not in self.executions:
            raise Problem("ResourceNotFound", f"Pipeline execution with ARN {arn} does not exist.")
        return self.executions[arn]


def _parameters(definition: Json, given: list[Json]) -> Json:
    declared = {one["Name"]: one for one in definition.get("Parameters", [])}
    values = {name: one["DefaultValue"] for name, one in declared.items() if "DefaultValue" in one}
    for one in given:
        if one["Name"] not in declared:
            raise invalid(f"Unknown parameter: {one['Name']}")
        values[one["Name"]] = one["Value"]
    if missing := [name for name in declared if name not in values]:
        raise invalid(f"Parameter {missing[0]} has no value")
    return values


def _resolved(value: Any, parameters: Json) -> Any:
    """Return *value* with references to parameters replaced."""
    if isinstance(value, dict) and list(value) == ["Get"]:
        return str(parameters[value["Get"].removeprefix("Parameters.")])
    if isinstance(value, dict):
        return {key: _resolved(item, parameters) for key, item in value.items()}
    return [_resolved(item, parameters) for item in value] if isinstance(value, list) else value
