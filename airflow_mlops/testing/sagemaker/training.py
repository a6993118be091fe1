"""The requests about training jobs, one method each, named like the operation."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow_mlops.testing.sagemaker.faults import Faults
from airflow_mlops.testing.sagemaker.lists import matches, page, within
from airflow_mlops.testing.sagemaker.problems import Json, Problem, invalid, not_found
from airflow_mlops.testing.sagemaker.run import Run
from airflow_mlops.testing.sagemaker.schema import service_model
from airflow_mlops.testing.sagemaker.world import ACCOUNT, World

SUMMARY = (
    *("TrainingJobName", "TrainingJobArn", "CreationTime", "TrainingEndTime", "LastModifiedTime"),
    *("TrainingJobStatus", "SecondaryStatus"),
)
MODELLED = (
    *("NextToken", "MaxResults", "NameContains", "StatusEquals", "SortBy", "SortOrder"),
    *("CreationTimeAfter", "CreationTimeBefore", "LastModifiedTimeAfter", "LastModifiedTimeBefore"),
)


class Training:
    """The training jobs of one region."""

    def __init__(self, world: World, faults: Faults, region: str) -> None:
        self._world, self._faults, self._region = world, faults, region
        self.runs: dict[str, Run] = {}
        self._listed: list[Json] | None = None

    def create_training_job(self, body: Json) -> Json:
        """Take a name that was never used, and start the job."""
        run = self.add(body)
        run.start()
        return {"TrainingJobArn": run.job["TrainingJobArn"]}

    def add(self, body: Json) -> Run:
        """Take a name that was never used. The job waits until it is started."""
        name = body["TrainingJobName"]
        arn = f"arn:aws:sagemaker:{self._region}:{ACCOUNT}:training-job/{name}"
        with self._world.lock:
            if name in self.runs:
                taken = "Training job names must be unique within an AWS account and region, and a training job with"
                raise Problem("ResourceInUse", f"{taken} this name already exists ({arn})")
            _check(body)
            now = datetime.now(UTC)
            model = f"{body['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{name}/output/model.tar.gz"
            known = {"TrainingJobArn": arn, "CreationTime": now, "ModelArtifacts": {"S3ModelArtifacts": model}}
            run = self.runs[name] = Run(self._world, self._region, {**body, **known})
            return run

    def describe_training_job(self, body: Json) -> Json:
        """Return everything about a job but its tags."""
        job = self._job(body["TrainingJobName"])
        known = service_model("sagemaker").shape_for("DescribeTrainingJobResponse").members
        return {key: value for key, value in job.items() if key in known}

    def list_training_jobs(self, body: Json) -> Json:
        """Return summaries; they tell no reasons."""
        if other := [key for key in body if key not in MODELLED]:
            raise invalid(f"The fake does not model {other[0]}")
        found = [job for job in self._all() if _is_wanted(job, body)]
        key = {"Name": "TrainingJobName", "Status": "TrainingJobStatus"}.get(body.get("SortBy", ""), "CreationTime")
        found.sort(key=lambda job: job[key], reverse=body.get("SortOrder") == "Descending")
        kept = [{name: job[name] for name in SUMMARY if name in job} for job in found]
        return page(kept, body, "TrainingJobSummaries")

    def stop_training_job(self, body: Json) -> Json:
        """Order the end of a job that goes on."""
        status = self._job(body["TrainingJobName"])["TrainingJobStatus"]
        if status != "InProgress":
            raise invalid(f"The request was rejected because the training job is in status {status}.")
        self.runs[body["TrainingJobName"]].order("stop")
        return {}

    def search(self, body: Json) -> list[Json]:
        """Return the jobs that a search finds, newest first."""
        known = service_model("sagemaker").shape_for("TrainingJob").members
        jobs = [{key: value for key, value in job.items() if key in known} for job in self._all()]
        found = [job for job in jobs if matches(job, body["SearchExpression"])]
        return sorted(found, key=lambda job: job["LastModifiedTime"], reverse=True)

    def _job(self, name: str) -> Json:
        with self._world.lock:
            if name not in self.runs:
                raise not_found()
            return dict(self.runs[name].job)

    def _all(self) -> list[Json]:
        with self._world.lock:
            if not self._faults.stale_lists or self._listed is None:
                self._listed = [dict(run.job) for run in self.runs.values()]
            return list(self._listed)


def _is_wanted(job: Json, body: Json) -> bool:
    is_named = body.get("NameContains", "").lower() in job["TrainingJobName"].lower()
    return is_named and body.get("StatusEquals") in {None, job["TrainingJobStatus"]} and within(job, body)


def _check(body: Json) -> None:
    """Refuse what the model allows and the service does not."""
    algorithm, resources = body.get("AlgorithmSpecification", {}), body.get("ResourceConfig", {})
    if not algorithm.get("TrainingImage"):
        raise invalid("TrainingImage or AlgorithmName must be given")
    if not resources.get("InstanceType") or not resources.get("InstanceCount") or not resources.get("VolumeSizeInGB"):
        raise invalid("InstanceType, InstanceCount and VolumeSizeInGB must be given")
    if "StoppingCondition" not in body:
        raise invalid("StoppingCondition must be given")
    limits = body["StoppingCondition"]
    runtime, wait = limits.get("MaxRuntimeInSeconds", 86400), limits.get("MaxWaitTimeInSeconds")
    if body.get("EnableManagedSpotTraining"):
        if wait is None or wait < runtime:
            raise invalid("MaxWaitTimeInSeconds must be equal to or greater than MaxRuntimeInSeconds")
    elif wait is not None:
        raise invalid("MaxWaitTimeInSeconds can be given for managed spot training only")
    if len({tag["Key"] for tag in body.get("Tags", [])}) != len(body.get("Tags", [])):
        raise invalid("Tag keys must be unique")
