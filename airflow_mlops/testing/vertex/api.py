"""What Vertex AI does when it is told to: start a job, or order its end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from airflow_mlops.testing.kfp.plan import plan
from airflow_mlops.testing.kfp.problems import Problem as KfpProblem
from airflow_mlops.testing.vertex.custom_run import CANCELLING, SUCCEEDED, CustomRun, Surroundings
from airflow_mlops.testing.vertex.pipeline_run import PipelineRun
from airflow_mlops.testing.vertex.problems import Json, Problem, bad
from airflow_mlops.testing.vertex.rules import check_custom_job, check_pipeline_job
from airflow_mlops.testing.vertex.schema import parse, protobuf_json
from airflow_mlops.testing.vertex.store import Store
from airflow_mlops.testing.vertex.tuning_rules import check_tuning_job
from airflow_mlops.testing.vertex.tuning_run import TuningRun


class Api:
    """The jobs that are started and stopped here.

    :ivar templates: addresses of pipelines in Artifact Registry, and what is there
    """

    def __init__(self, store: Store, around: Surroundings) -> None:
        self.store, self.around = store, around
        self.templates: dict[str, Json] = {}

    def create(self, project: str, region: str, collection: str, query: Json, body: Any) -> Json:
        """Start a job and return it."""
        if collection == "customJobs":
            job = parse("CustomJob", body)
            check_custom_job(job)
            entry = self.store.add(project, region, collection, job)
            entry.run = CustomRun(self.store, entry, replace(self.around))
        elif collection == "hyperparameterTuningJobs":
            job = parse("HyperparameterTuningJob", body)
            check_tuning_job(job)
            entry = self.store.add(project, region, collection, job)
            entry.run = TuningRun(self.store, entry, replace(self.around))
        else:
            job_id = query.get("pipelineJobId", "")
            job = parse("PipelineJob", body)
            check_pipeline_job(job, job_id)
            steps, given = self._planned(job)
            entry = self.store.add(project, region, collection, job, job_id)
            entry.run = PipelineRun(self.store, entry, steps, given, replace(self.around))
        entry.run.start()
        return self.store.shown(entry)

    def cancel(self, project: str, region: str, collection: str, job_id: str) -> Json:
        """Order the end of a job.

        :raises Problem: it has ended, or there is none
        """
        entry = self.store.get(project, region, collection, job_id)
        state = entry.message.state
        if state >= SUCCEEDED and state != CANCELLING:
            raise Problem("FAILED_PRECONDITION", f"The job {job_id} is in a final state and cannot be cancelled.")
        entry.run.cancel()
        return {}

    def _planned(self, job: Any) -> tuple[Any, Json]:
        """Return the tasks of a pipeline, and its parameters."""
        json_format = protobuf_json()
        if job.template_uri:
            if job.template_uri not in self.templates:
                raise Problem("NOT_FOUND", f"The template {job.template_uri} does not exist.")
            json_format.ParseDict(self.templates[job.template_uri], job.pipeline_spec)
        given = {
            key: _number(json_format.MessageToDict(value)) for key, value in job.runtime_config.parameter_values.items()
        }
        try:
            return plan(json_format.MessageToDict(job.pipeline_spec), given), given
        except KfpProblem as problem:
            raise bad(problem.message) from None


def _number(value: Any) -> Any:
    """Return a number without the decimal point that it got on its way."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
