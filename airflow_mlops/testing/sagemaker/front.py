"""What every request passes: the signature, the count, the faults, the shape, and then the operation."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping

from airflow_mlops.testing.sagemaker.faults import Faults
from airflow_mlops.testing.sagemaker.lists import page
from airflow_mlops.testing.sagemaker.pipelines import Pipelines
from airflow_mlops.testing.sagemaker.problems import Json, Problem, invalid
from airflow_mlops.testing.sagemaker.schema import answer_body, check_request
from airflow_mlops.testing.sagemaker.signature import Signed, check_signature
from airflow_mlops.testing.sagemaker.tokens import assume_role
from airflow_mlops.testing.sagemaker.training import Training
from airflow_mlops.testing.sagemaker.tuning import SEARCH, TUNING, Tuning
from airflow_mlops.testing.sagemaker.world import World
from airflow_mlops.testing.wire.calls import Call, Calls
from airflow_mlops.testing.wire.listener import Answer

TARGETS = {"SageMaker": "sagemaker", "Logs_20140328": "logs", "secretsmanager": "secretsmanager"}
SERVED = {
    "sagemaker": (
        *("CreateTrainingJob", "DescribeTrainingJob", "ListTrainingJobs", "StopTrainingJob", "Search"),
        *("DescribePipeline", "StartPipelineExecution", "DescribePipelineExecution", "ListPipelineExecutions"),
        *("ListPipelineExecutionSteps", "StopPipelineExecution"),
        *TUNING,
    ),
    "logs": ("DescribeLogStreams", "GetLogEvents", "FilterLogEvents"),
    "secretsmanager": ("GetSecretValue",),
}


class Front:
    """All services; each region has its own jobs and logs."""

    def __init__(self, world: World, faults: Faults) -> None:
        self._world, self._faults = world, faults
        self.calls = Calls()
        self._regions: dict[str, tuple[Training, Pipelines]] = {}
        self.tunings: dict[str, Tuning] = {}
        self._lock = threading.Lock()

    def region(self, name: str) -> tuple[Training, Pipelines]:
        """Return the jobs and pipelines of a region."""
        with self._lock:
            if name not in self._regions:
                training = Training(self._world, self._faults, name)
                self._regions[name] = (training, Pipelines(training, name))
            return self._regions[name]

    def regions(self) -> list[tuple[Training, Pipelines]]:
        """Return those of every region that was asked."""
        return list(self._regions.values())

    def tuning(self, name: str) -> Tuning:
        """Return the searches of a region."""
        training = self.region(name)[0]
        with self._lock:
            return self.tunings.setdefault(name, Tuning(training, name))

    def answer(self, method: str, target: str, headers: Mapping[str, str], raw: bytes) -> Answer:
        """Answer one request.

        :raises ConnectionLost: its answer is lost
        """
        operation = next((value for key, value in headers.items() if key.lower() == "x-amz-target"), "S3.GetObject")
        service, operation = TARGETS.get(operation.partition(".")[0], "s3"), operation.partition(".")[2]
        code = 0
        try:
            signed = check_signature(self._world.keys, method, self._world.address + target, headers, raw)
            answer = self._faults.answer(operation, lambda: self._act(operation, signed, method, target, raw))
            code = answer.code
        except Problem as problem:
            code = problem.status
            body = problem.xml() if service == "s3" else json.dumps(problem.body()).encode()
            kind = "application/xml" if service == "s3" else "application/x-amz-json-1.1"
            answer = Answer(code, body, content_type=kind, headers={"x-amzn-RequestId": "fake"})
        finally:
            self.calls.add(Call(operation, service, "", "", code))
        return answer

    def _act(self, operation: str, signed: Signed, method: str, target: str, raw: bytes) -> Answer:
        service = signed.service
        if service == "s3":
            return self._world.storage.answer(method, target)
        if service == "sts":
            return assume_role(self._world, raw)
        if operation not in SERVED.get(service, ()):
            raise Problem("UnknownOperationException", f"The fake does not serve {operation}")
        body = json.loads(raw or b"{}")
        check_request(service, operation, body)
        answer = answer_body(service, operation, self._do(service, operation, signed.region, body))
        return Answer(200, json.dumps(answer).encode(), content_type="application/x-amz-json-1.1")

    def _do(self, service: str, operation: str, region: str, body: Json) -> Json:
        if SEARCH in operation or body.get("Resource") == SEARCH:
            return self.tuning(region).do(operation, body)
        training, pipelines = self.region(region)
        if operation == "Search":
            return self._search(training, pipelines, body)
        if service == "secretsmanager":
            return self._secret(body["SecretId"])
        holder: object = pipelines if "Pipeline" in operation else training
        holder = self._world.log_of(region) if service == "logs" else holder
        found: Json = getattr(holder, re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower())(body)
        return found

    def _search(self, training: Training, pipelines: Pipelines, body: Json) -> Json:
        holders: dict[str, Training | Pipelines] = {"TrainingJob": training, "PipelineExecution": pipelines}
        kind = body["Resource"]
        if kind not in holders:
            raise invalid(f"The fake does not search {kind}")
        return page([{kind: found} for found in holders[kind].search(body)], body, "Results")

    def _secret(self, name: str) -> Json:
        if name not in self._world.vault:
            raise Problem("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
        return {"Name": name, "SecretString": self._world.vault[name]}
