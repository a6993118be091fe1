"""The requests about tuning jobs, one method each, named like the operation. Trials are real training jobs.

A tuning job cannot set its programs' entry point: an image is started as ``train``. What it then finds is what
:meth:`airflow_mlops.testing.sagemaker.fake.SageMakerFake.add_program` put there.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateHyperParameterTuningJob.html
"""

from __future__ import annotations

import re
import threading

from airflow_mlops.testing.sagemaker.lists import matches, page, within
from airflow_mlops.testing.sagemaker.problems import Json, Problem, invalid
from airflow_mlops.testing.sagemaker.training import Training
from airflow_mlops.testing.sagemaker.tuning_rules import check_search
from airflow_mlops.testing.sagemaker.tuning_search import Search
from airflow_mlops.testing.sagemaker.world import ACCOUNT

SEARCH = "HyperParameterTuningJob"
TUNING = (
    *(f"{verb}{SEARCH}" for verb in ("Create", "Describe", "Stop")),
    f"List{SEARCH}s",
    f"ListTrainingJobsFor{SEARCH}",
)
SUMMARY = (
    *(f"{SEARCH}{end}" for end in ("Name", "Arn", "Status")),
    *("CreationTime", "HyperParameterTuningEndTime", "LastModifiedTime"),
    *("TrainingJobStatusCounters", "ObjectiveStatusCounters"),
)
MODELLED = (
    *("NextToken", "MaxResults", "NameContains", "StatusEquals", "SortBy", "SortOrder"),
    *("CreationTimeAfter", "CreationTimeBefore", "LastModifiedTimeAfter", "LastModifiedTimeBefore"),
)
TRIALS_MODELLED = (f"{SEARCH}Name", "NextToken", "MaxResults", "StatusEquals", "SortBy", "SortOrder")


class Tuning:
    """The tuning jobs of one region."""

    def __init__(self, training: Training, region: str) -> None:
        self._training, self._region = training, region
        self._lock = threading.Lock()
        self.searches: dict[str, Search] = {}

    def do(self, operation: str, body: Json) -> Json:
        """Carry out one operation."""
        found: Json = getattr(self, re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower())(body)
        return found

    def end(self) -> None:
        """End all of them."""
        for search in self.searches.values():
            search.stop()
        for search in self.searches.values():
            search.wait()

    def create_hyper_parameter_tuning_job(self, body: Json) -> Json:
        """Take a name that was never used, and begin the search."""
        name = body[f"{SEARCH}Name"]
        arn = f"arn:aws:sagemaker:{self._region}:{ACCOUNT}:hyper-parameter-tuning-job/{name}"
        with self._lock:
            if name.lower() in {known.lower() for known in self.searches}:
                raise Problem("ResourceInUse", f"Hyperparameter tuning job names must be unique: {arn} already exists")
            check_search(body)
            self.searches[name] = Search(self._training, {**body, f"{SEARCH}Arn": arn})
        self.searches[name].start()
        return {f"{SEARCH}Arn": arn}

    def describe_hyper_parameter_tuning_job(self, body: Json) -> Json:
        """Return everything about a tuning job but its tags."""
        return {key: value for key, value in self._search(body).told().items() if key != "Tags"}

    def list_hyper_parameter_tuning_jobs(self, body: Json) -> Json:
        """Return summaries; they tell neither a reason nor the best trial."""
        if other := [key for key in body if key not in MODELLED]:
            raise invalid(f"The fake does not model {other[0]}")
        found = [told for one in list(self.searches.values()) if _is_wanted(told := one.told(), body)]
        key = {"Name": f"{SEARCH}Name", "Status": f"{SEARCH}Status"}.get(body.get("SortBy", ""), "CreationTime")
        found.sort(key=lambda told: told[key], reverse=body.get("SortOrder") == "Descending")
        return page([_summary(told) for told in found], body, f"{SEARCH}Summaries")

    def list_training_jobs_for_hyper_parameter_tuning_job(self, body: Json) -> Json:
        """Return the trials of a tuning job."""
        if other := [key for key in body if key not in TRIALS_MODELLED]:
            raise invalid(f"The fake does not model {other[0]}")
        found = [one for one in self._search(body).trials() if _has_status(one, body)]
        key = {"Name": "TrainingJobName", "Status": "TrainingJobStatus"}.get(body.get("SortBy", ""), "CreationTime")
        found.sort(key=lambda one: one[key], reverse=body.get("SortOrder") == "Descending")
        return page(found, body, "TrainingJobSummaries")

    def stop_hyper_parameter_tuning_job(self, body: Json) -> Json:
        """Order the end of a search that goes on, and of all its trials."""
        search = self._search(body)
        status = search.told()[f"{SEARCH}Status"]
        if status != "InProgress":
            raise invalid(f"The request was rejected because the hyperparameter tuning job is in status {status}.")
        search.stop()
        return {}

    def search(self, body: Json) -> Json:
        """Return the tuning jobs that a search finds, newest first."""
        jobs = [search.told() for search in list(self.searches.values())]
        found = [job for job in jobs if matches(job, body["SearchExpression"])]
        found.sort(key=lambda job: job["LastModifiedTime"], reverse=True)
        return page([{SEARCH: job} for job in found], body, "Results")

    def _search(self, body: Json) -> Search:
        name = body[f"{SEARCH}Name"]
        if name not in self.searches:
            raise Problem("ResourceNotFound", f"Amazon SageMaker can't find a tuning job with the name {name}.")
        return self.searches[name]


def _summary(told: Json) -> Json:
    config = told[f"{SEARCH}Config"]
    found = {name: told[name] for name in SUMMARY if name in told}
    return {**found, "Strategy": config["Strategy"], "ResourceLimits": config["ResourceLimits"]}


def _has_status(trial: Json, body: Json) -> bool:
    return body.get("StatusEquals") in {None, trial["TrainingJobStatus"]}


def _is_wanted(told: Json, body: Json) -> bool:
    is_named = body.get("NameContains", "").lower() in told[f"{SEARCH}Name"].lower()
    return is_named and body.get("StatusEquals") in {None, told[f"{SEARCH}Status"]} and within(told, body)
