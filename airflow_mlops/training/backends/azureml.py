"""Training jobs as command jobs of Azure Machine Learning: one a name, found again anywhere, ended with their task.

The value of a secret never comes near a job's description: the job itself reads it from Azure Key Vault.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from airflow_mlops.core.errors import InvalidSpecError, MlopsError, NotFoundError
from airflow_mlops.core.features import Feature, refuse_lacking
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.core.refs import DataVersion
from airflow_mlops.training.backends.azureml_job import (
    ENVIRONMENT,
    command_job,
    environment_of,
    read_options,
    refuse_sizes,
)
from airflow_mlops.training.backends.azureml_jobs import AzureMLJobs
from airflow_mlops.training.backends.azureml_marks import DATA, read
from airflow_mlops.training.backends.azureml_start import REPORT
from airflow_mlops.training.backends.azureml_status import billed_seconds, job_status
from airflow_mlops.training.contract import JobHandle, TrainingResult, TrainingSpec
from airflow_mlops.training.launch import RUN_ID
from airflow_mlops.training.output import Output

__all__ = ["AzureMLBackend"]

Json = dict[str, Any]

log = logging.getLogger(__name__)

LONGEST_REPORT = 1 << 20
CHUNK = 1 << 20

_FIRST_LOG = re.compile(r"user_logs/std_log(?:_process_0+)?\.txt")
"""What node 0 printed: one file, or one a process.

https://learn.microsoft.com/azure/machine-learning/how-to-log-view-metrics#view-and-download-diagnostic-logs
"""


class AzureMLBackend(AzureMLJobs):
    """Runs jobs in the workspace of a connection. ``secret_env`` names ``<key vault>/<secret>``.

    ``image`` is a container image, or an environment as ``azureml:<name>:<version>``.
    """

    lacks: ClassVar[Mapping[Feature, str]] = {
        Feature.GPUS: "the machine type decides how many there are; set resources.instance_type",
    }

    def submit(self, spec: TrainingSpec, *, name: str, owner: TaskIdentity) -> JobHandle:
        """Make the job called *name*, or find it. A container image becomes an environment first, the same for all."""
        refuse_lacking(self.name, self.lacks, spec.features())
        refuse_sizes(self.name, spec)
        options = read_options(self.name, spec.options, self._client.defaults)
        workspace, vault = self._client.workspace_id, self._client.cloud.vault
        body = command_job(spec, name, owner, options, workspace=workspace, vault=vault)
        environment, version = environment_of(spec.image, workspace)
        if (job := self._find(name)) is not None:
            return self._same(job, spec)
        if version:
            environment = self._client.keep_environment(
                ENVIRONMENT, version, {"image": spec.image, "osType": "Linux", "isAnonymous": True}
            )
        return self._put(name, {**body, "environmentId": environment}, spec)

    def collect(self, handle: JobHandle) -> TrainingResult:
        """Return what the program with rank 0 wrote to ``MLOPS_OUTPUT``, and how long the job ran on its nodes.

        :raises NotFoundError: there is no such job; or its report is gone and it had no tracking run to read instead
        :raises InvalidSpecError: the job has not succeeded
        :raises JobFailedError: the report is not what it should be
        """
        job = self._succeeded(handle)
        run_id = str((job["properties"].get("environmentVariables") or {}).get(RUN_ID) or "")
        try:
            output = self._report(job)
        except NotFoundError as error:
            if not run_id:
                raise
            log.warning("%s What it logged to its run %s is all there is.", error, run_id)
            output = Output()
        versions = {key: DataVersion.from_dict(value) for key, value in read(job, DATA).items()}
        run_id = output.run_id or run_id
        return TrainingResult(handle, output.model_uri, output.metrics, run_id, versions, self._billed(job))

    def read_log(self, handle: JobHandle, offset: int) -> tuple[str, int]:
        """Return what node 0 printed from *offset* on, and the offset to go on from.

        A log that cannot be read, for example because its storage is in a network of its own, is empty with a warning.
        """
        job = self._find(self._name(handle)) if self._name(handle) else None
        if job is None:
            return "", offset
        try:
            raw = self._printed(job, offset)
        except MlopsError as error:
            log.warning("The log of %s cannot be read: %s", handle.job_id, error)
            return "", offset
        if not job_status(job).state.terminal or len(raw) == CHUNK:
            raw = raw[: raw.rfind(b"\n") + 1] or (raw if len(raw) == CHUNK else b"")
        return raw.decode(errors="replace"), offset + len(raw)

    def _billed(self, job: Json) -> float | None:
        try:
            return billed_seconds(job, self._client.details(job))
        except NotFoundError:
            return None

    def _printed(self, job: Json, offset: int) -> bytes:
        try:
            files = self._client.details(job).get("logFiles") or {}
        except NotFoundError:
            return b""
        first = sorted(name for name in files if _FIRST_LOG.fullmatch(name))
        return (self._client.fetch(str(files[first[0]]), offset, CHUNK) or b"") if first else b""

    def _report(self, job: Json) -> Output:
        """Return the report. The job makes the file before its program starts, so it must be there.

        :raises NotFoundError: it is not
        """
        where = f"{REPORT} of job {job['name']!r}"
        raw = self._client.artifact(job, REPORT, LONGEST_REPORT + 1)
        if raw is None:
            raise NotFoundError(f"The report {where} is gone. It was deleted, or the job did not write to 'outputs'.")
        if len(raw) > LONGEST_REPORT:
            raise InvalidSpecError(f"The report {where} is longer than {LONGEST_REPORT} bytes.")
        return Output.read(raw.decode(errors="replace"), where)
