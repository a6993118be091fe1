"""What every platform's own words mean: one table, written by hand from the vendors' pages, for all that runs jobs.

Each platform's own table in the package is held to it word by word, and both to the enumeration of the vendor's own
library where there is one: a release that brings a new word fails here, until somebody has decided what it means.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.session import get_session
from google.cloud.aiplatform_v1.types import JobState as VertexJob
from google.cloud.aiplatform_v1.types import PipelineState as VertexPipeline
from hypothesis import assume, given
from hypothesis import strategies as st
from kfp_server_api import V2beta1RuntimeState

from airflow_mlops.training.backends import (
    azureml_status,
    kubeflow_status,
    kubernetes_status,
    local_folder,
    local_runner,
    sagemaker_status,
    vertex_status,
)
from airflow_mlops.training.backends.kubernetes_job import CANCELLED as CANCEL_MARK
from airflow_mlops.training.contract import JobState, JobStatus
from airflow_mlops.training.pipelines import sagemaker_states
from airflow_mlops.training.pipelines import states as kubeflow_states

PENDING, RUNNING, SUCCEEDED = JobState.PENDING, JobState.RUNNING, JobState.SUCCEEDED
FAILED, CANCELLED, PREEMPTED = JobState.FAILED, JobState.CANCELLED, JobState.PREEMPTED
UNKNOWN = JobState.UNKNOWN

Json = dict[str, Any]

# Our own words: there is no vendor. What each means is said where the runner writes it.
LOCAL = {
    "accepted": PENDING,
    "starting": PENDING,
    "running": RUNNING,
    "completed": SUCCEEDED,
    "failed": FAILED,
    "killed": FAILED,
    "not_started": FAILED,
    "timed_out": FAILED,
    "vanished": FAILED,
    "cancelled": CANCELLED,
    "interrupted": PREEMPTED,
    "rebooted": PREEMPTED,
}

# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeTrainingJob.html
# TrainingJobStatus, and after the stroke SecondaryStatus, which alone tells what a job in progress waits for.
SAGEMAKER = {
    "InProgress/Starting": PENDING,
    "InProgress/Pending": PENDING,
    "InProgress/LaunchingMLInstances": PENDING,
    "InProgress/PreparingTrainingStack": PENDING,
    "InProgress/Downloading": PENDING,
    "InProgress/DownloadingTrainingImage": PENDING,
    "InProgress/Interrupted": PENDING,
    "InProgress/Restarting": PENDING,
    "InProgress/Training": RUNNING,
    "InProgress/Updating": RUNNING,
    "InProgress/Uploading": RUNNING,
    "InProgress/Stopping": RUNNING,
    "Stopping": RUNNING,
    "Stopped/Stopped": CANCELLED,
    "Stopped/MaxRuntimeExceeded": FAILED,
    "Stopped/MaxWaitTimeExceeded": PREEMPTED,
    "Stopped/Interrupted": PREEMPTED,
    "Completed": SUCCEEDED,
    "Failed": FAILED,
    "Deleting": UNKNOWN,
}

# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribePipelineExecution.html
SAGEMAKER_PIPELINES = {
    "Executing": RUNNING,
    "Stopping": RUNNING,
    "Stopped": CANCELLED,
    "Succeeded": SUCCEEDED,
    "Failed": FAILED,
    "CompletedWithFailures": FAILED,
}

# https://cloud.google.com/vertex-ai/docs/reference/rest/v1/JobState
VERTEX = {
    "JOB_STATE_UNSPECIFIED": UNKNOWN,
    "JOB_STATE_QUEUED": PENDING,
    "JOB_STATE_PENDING": PENDING,
    "JOB_STATE_RUNNING": RUNNING,
    "JOB_STATE_SUCCEEDED": SUCCEEDED,
    "JOB_STATE_FAILED": FAILED,
    "JOB_STATE_CANCELLING": RUNNING,
    "JOB_STATE_CANCELLED": CANCELLED,
    "JOB_STATE_PAUSED": PENDING,
    "JOB_STATE_EXPIRED": FAILED,
    "JOB_STATE_UPDATING": RUNNING,
    "JOB_STATE_PARTIALLY_SUCCEEDED": FAILED,
}

# https://cloud.google.com/vertex-ai/docs/reference/rest/v1/PipelineState
VERTEX_PIPELINES = {
    "PIPELINE_STATE_UNSPECIFIED": UNKNOWN,
    "PIPELINE_STATE_QUEUED": PENDING,
    "PIPELINE_STATE_PENDING": PENDING,
    "PIPELINE_STATE_RUNNING": RUNNING,
    "PIPELINE_STATE_SUCCEEDED": SUCCEEDED,
    "PIPELINE_STATE_FAILED": FAILED,
    "PIPELINE_STATE_CANCELLING": RUNNING,
    "PIPELINE_STATE_CANCELLED": CANCELLED,
    "PIPELINE_STATE_PAUSED": PENDING,
}

# https://learn.microsoft.com/rest/api/azureml/jobs/get?view=rest-azureml-2024-10-01#jobstatus
# Command jobs and pipeline jobs are one resource with one status.
AZUREML = {
    "NotStarted": PENDING,
    "Starting": PENDING,
    "Provisioning": PENDING,
    "Preparing": PENDING,
    "Queued": PENDING,
    "Paused": PENDING,
    "Running": RUNNING,
    "Finalizing": RUNNING,
    "CancelRequested": RUNNING,
    "Completed": SUCCEEDED,
    "Failed": FAILED,
    "Canceled": CANCELLED,
    "NotResponding": UNKNOWN,
    "Unknown": UNKNOWN,
    "Scheduled": PENDING,  # a word of the preview versions of the API
}

# https://www.kubeflow.org/docs/components/pipelines/reference/api/kubeflow-pipeline-api-spec/ (RuntimeState)
KUBEFLOW_PIPELINES = {
    "RUNTIME_STATE_UNSPECIFIED": UNKNOWN,
    "PENDING": PENDING,
    "RUNNING": RUNNING,
    "SUCCEEDED": SUCCEEDED,
    "SKIPPED": FAILED,
    "FAILED": FAILED,
    "CANCELING": RUNNING,
    "CANCELED": CANCELLED,
    "PAUSED": PENDING,
}


def local(word: str) -> JobStatus:
    """Return what the folder of an ended job with this word tells."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / local_runner.EXIT).write_text(json.dumps({"word": word}))
        return local_folder.JobFolder(Path(folder)).status()


def sagemaker(word: str) -> JobStatus:
    """Return what a training job with this status and secondary status tells; one word is both."""
    status, _, detail = word.partition("/")
    return sagemaker_status.job_status({"TrainingJobStatus": status, "SecondaryStatus": detail or status})


def sagemaker_words() -> Json:
    """Return the package's three tables of training jobs as one."""
    waits = {f"InProgress/{word}": state for word, state in sagemaker_status.IN_PROGRESS.items()}
    stopped = {f"Stopped/{word}": state for word, state in sagemaker_status.STOPPED.items()}
    return waits | stopped | sagemaker_status.STATES


def enumerated(*shapes: str) -> set[str]:
    """Return the values of enumerations of the service model that botocore brings."""
    model = get_session().get_service_model("sagemaker")
    return {str(value) for shape in shapes for value in model.shape_for(shape).enum}


def begins(prefix: str) -> Json:
    """Return the package's words of Vertex AI that begin with *prefix*."""
    return {word: state for word, state in vertex_status.STATES.items() if word.startswith(prefix)}


@dataclass(frozen=True)
class Words:
    """One platform's words.

    :param meant: what each means, by the tables above
    :param own: the package's own table
    :param vendor: every value of the vendor's enumeration
    :param read: how the package reads a word
    """

    meant: Mapping[str, JobState]
    own: Mapping[str, JobState]
    vendor: Iterable[str]
    read: Callable[[str], JobStatus]


PLATFORMS = {
    "local": Words(LOCAL, local_folder.STATES, (), local),
    "sagemaker": Words(
        SAGEMAKER, sagemaker_words(), enumerated("TrainingJobStatus", "SecondaryStatus") - {"InProgress"}, sagemaker
    ),
    "sagemaker pipelines": Words(
        SAGEMAKER_PIPELINES,
        sagemaker_states.STATES,
        enumerated("PipelineExecutionStatus"),
        lambda word: sagemaker_states.execution_status({"PipelineExecutionStatus": word}),
    ),
    "vertex": Words(
        VERTEX,
        begins("JOB_"),
        [state.name for state in VertexJob],
        lambda word: vertex_status.status_of({"state": word}),
    ),
    "vertex pipelines": Words(
        VERTEX_PIPELINES,
        begins("PIPELINE_"),
        [state.name for state in VertexPipeline],
        lambda word: vertex_status.status_of({"state": word}),
    ),
    "azureml, and its pipelines": Words(
        AZUREML,
        azureml_status.STATES,
        (),  # Azure's own library of jobs is not needed, so it is not installed
        lambda word: azureml_status.job_status({"properties": {"status": word}}),
    ),
    "kubeflow pipelines": Words(
        KUBEFLOW_PIPELINES,
        kubeflow_states.STATES,
        V2beta1RuntimeState.allowable_values,
        lambda word: kubeflow_states.status_of({"state": word}),
    ),
}


@pytest.mark.parametrize(
    ("platform", "word", "state"),
    [(platform, word, state) for platform, words in PLATFORMS.items() for word, state in words.meant.items()],
)
def test_every_word_means_what_the_vendor_says(platform: str, word: str, state: JobState) -> None:
    """A platform's word becomes one of seven states; only its words for success are success."""
    assert PLATFORMS[platform].read(word).state is state


@pytest.mark.parametrize("platform", PLATFORMS)
def test_no_table_has_a_word_more_or_less(platform: str) -> None:
    """The package's table of a platform is the one above, word by word: none is there by guess, none is left out."""
    assert dict(PLATFORMS[platform].own) == PLATFORMS[platform].meant


@pytest.mark.parametrize("platform", [name for name, words in PLATFORMS.items() if words.vendor])
def test_no_word_of_the_vendor_s_own_library_is_left_out(platform: str) -> None:
    """Every value of the enumeration that the installed SDK brings has a state that somebody chose."""
    words = PLATFORMS[platform]
    parts = {part for word in words.meant for part in (word, *word.split("/"))}
    assert set(words.vendor) - parts == set()


@pytest.mark.parametrize("platform", PLATFORMS)
@given(word=st.text(max_size=12) | st.sampled_from(["Success", "succeeded", "COMPLETED", "Done", "100", "InProgress"]))
def test_a_word_that_nobody_knows_is_unknown(platform: str, word: str) -> None:
    """Whatever a platform says that is in no table, it is UNKNOWN, which is looked at again, and never success."""
    words = PLATFORMS[platform]
    assume(word not in words.meant and not {f"InProgress/{word}", f"Stopped/{word}"} & set(words.meant))
    assert words.read(word).state is UNKNOWN


@pytest.mark.parametrize("status", ["InProgress", "Stopped"])
@given(detail=st.text(min_size=1, max_size=12) | st.sampled_from(["Completed", "Failed"]))
def test_a_secondary_status_that_nobody_knows_is_unknown(status: str, detail: str) -> None:
    """SageMaker's second word alone says what a job in progress, or a stopped one, is doing: a new one is UNKNOWN."""
    assume("/" not in detail and f"{status}/{detail}" not in SAGEMAKER)
    assert sagemaker(f"{status}/{detail}").state is UNKNOWN


# Kubernetes has no word for what a Job is doing: conditions that are true, the reason of one of them, and counts.


def described(*conditions: str, is_ours: bool = False, suspend: bool = False, **counts: int) -> Json:
    """Return a Job, or a TrainJob, with these true conditions, written ``<type>/<reason>``."""
    true = [dict(zip(("type", "reason"), one.split("/"), strict=False), status="True") for one in conditions]
    return {
        "metadata": {"name": "j", "annotations": {CANCEL_MARK: "true"} if is_ours else {}},
        "spec": {"suspend": suspend},
        "status": {"conditions": true, "jobsStatus": [{"name": "node", **counts}], **counts},
    }


# https://kubernetes.io/docs/concepts/workloads/controllers/job/#job-termination-and-cleanup and
# https://pkg.go.dev/k8s.io/api/batch/v1#JobConditionType (types and reasons)
KUBERNETES = [
    (described(), PENDING, "Pending"),
    (described(active=1), PENDING, "Pending"),
    (described(active=1, ready=1), RUNNING, "Running"),
    (described("Suspended/JobSuspended", suspend=True), PENDING, "Suspended"),
    (described("SuccessCriteriaMet/CompletionsReached"), RUNNING, "SuccessCriteriaMet"),
    (described("SuccessCriteriaMet/SuccessPolicy"), RUNNING, "SuccessCriteriaMet"),
    (described("FailureTarget/BackoffLimitExceeded", ready=1), RUNNING, "FailureTarget"),
    (described("SuccessCriteriaMet/CompletionsReached", "Complete/CompletionsReached"), SUCCEEDED, "Complete"),
    (described("Complete/SuccessPolicy"), SUCCEEDED, "Complete"),
    (described("Failed/BackoffLimitExceeded"), FAILED, "BackoffLimitExceeded"),
    (described("Failed/DeadlineExceeded"), FAILED, "DeadlineExceeded"),
    (described("Failed/MaxFailedIndexesExceeded"), FAILED, "Failed"),
    (described("Failed/FailedIndexes"), FAILED, "Failed"),
    (described("Failed/PodFailurePolicy"), PREEMPTED, "PodFailurePolicy"),
    (described("Failed/Complete"), FAILED, "Failed"),  # what type and reason say is not mixed up
    (described("Failed/DeadlineExceeded", is_ours=True), CANCELLED, "Cancelled"),
]

# https://github.com/kubeflow/trainer/blob/v2.3.0/pkg/apis/trainer/v1alpha1/trainjob_types.go (types and reasons)
TRAINER = [
    (described(), PENDING, "Created"),
    (described(active=1), PENDING, "Created"),
    (described(active=1, ready=1), RUNNING, "Ready"),
    (described("Suspended/Suspended", suspend=True), PENDING, "Suspended"),
    (described("Complete/AllJobsCompleted"), SUCCEEDED, "Complete"),
    (described("Failed/FailedJobs"), FAILED, "Failed"),
    (described("Failed/Complete"), FAILED, "Failed"),
    (described("Failed/DeadlineExceeded"), FAILED, "DeadlineExceeded"),
    (described("Failed/TrainingRuntimeNotSupported"), FAILED, "TrainingRuntimeNotSupported"),
    (described("Suspended/Suspended", suspend=True, is_ours=True, active=1), RUNNING, "Suspending"),
    (described("Suspended/Suspended", suspend=True, is_ours=True), CANCELLED, "Cancelled"),
    ({**described(), "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, RUNNING, "Deleting"),
]

CLUSTERS: dict[str, tuple[list[tuple[Json, JobState, str]], Callable[[Json], JobStatus], Mapping[str, JobState]]] = {
    "kubernetes": (KUBERNETES, kubernetes_status.job_status, kubernetes_status.STATES),
    "kubeflow": (TRAINER, kubeflow_status.train_job_status, kubeflow_status.STATES),
}


@pytest.mark.parametrize(
    ("platform", "job", "state", "word"),
    [(platform, *row) for platform, (rows, _, _) in CLUSTERS.items() for row in rows],
)
def test_every_description_means_what_the_vendor_says(platform: str, job: Json, state: JobState, word: str) -> None:
    """Conditions, their reasons and the counts of pods become one of seven states, and a word that says which."""
    found = CLUSTERS[platform][1](job)
    assert (found.state, found.native) == (state, word)


@pytest.mark.parametrize("platform", CLUSTERS)
def test_no_word_is_there_that_no_description_leads_to(platform: str) -> None:
    """The package's words are those above, and one of a TrainJob that only the Job below it tells: it is preempted."""
    rows, _, own = CLUSTERS[platform]
    below = {"Preempted": PREEMPTED} if platform == "kubeflow" else {}
    assert {word: state for _, state, word in rows} | below == dict(own)


def test_a_train_job_is_preempted_by_what_the_job_below_says() -> None:
    """Only the rule for pods that are taken away makes it so: another rule of the runtime is a failure."""
    taken = described("Failed/PodFailurePolicy")
    taken["status"]["conditions"][0]["message"] = "Container node for pod ... has condition DisruptionTarget"
    assert kubeflow_status.is_preempted(taken)
    assert not kubeflow_status.is_preempted(described("Failed/PodFailurePolicy"))
    assert not kubeflow_status.is_preempted(described("Failed/BackoffLimitExceeded"))


@pytest.mark.parametrize("platform", CLUSTERS)
@given(word=st.text(max_size=12) | st.sampled_from(["Succeeded", "complete", "Done"]))
def test_a_condition_or_reason_that_nobody_knows_ends_nothing_well(platform: str, word: str) -> None:
    """A new condition changes nothing, a new reason of Failed is a failure, and what cannot be read is UNKNOWN."""
    _, read, own = CLUSTERS[platform]
    assume(word not in own)
    running, failed = described(active=1, ready=1), described("Failed")
    running["status"]["conditions"] = [{"type": word, "status": "True", "reason": "Complete"}]
    failed["status"]["conditions"][0]["reason"] = word
    assert (read(running).state, read(failed).state) == (RUNNING, FAILED)
    assert read({**running, "status": {"conditions": [word]}}).state is UNKNOWN
