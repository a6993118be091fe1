"""Pipelines on Kubeflow Pipelines 2: one run per name, because its id is made from the name.

The server takes the id it is given (all releases from 2.0 to 2.17 do), but starts a second workflow for an id that it
has before it notices. So a run is always looked for first, and the order to start one is never sent twice in a row:
when its answer was lost, the run is looked for, and if it does not appear, a later try looks again.

Vendor page: https://www.kubeflow.org/docs/components/pipelines/reference/api/kubeflow-pipeline-api-spec/
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import ConflictError, InvalidSpecError, NotFoundError, PlatformUnavailableError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.core.records import Record
from airflow_mlops.platforms.kfp import KfpClient, contains, one_of
from airflow_mlops.training.contract import JobHandle, JobState, JobStatus
from airflow_mlops.training.pipelines import marks
from airflow_mlops.training.pipelines.compiled import check_parameters, checked, with_caching
from airflow_mlops.training.pipelines.contract import PipelineResult, PipelineSpec
from airflow_mlops.training.pipelines.marks import Mark
from airflow_mlops.training.pipelines.states import CAN_END, status_of, tasks

MANY = 50
"""Runs that one look asks for: their ids are part of the address, and every run comes with its whole pipeline."""

LOST_ANSWER_PAUSES = (0.2, 0.5, 1.0, 2.0)
"""Seconds between the looks for a run whose start was ordered and not answered."""


@dataclass(frozen=True)
class RunOptions(Record):
    """The fields of a spec's ``options`` that this platform has.

    :param experiment: name of the experiment, made if it is absent; by default the server's own
    :param namespace: profile of a server with many users; by default the connection's
    :param pipeline_root: where artifacts go
    :param service_account: of the pods
    :param cache: whether a task may take the result of an earlier one; by default as the pipeline was compiled
    """

    experiment: str = ""
    namespace: str = ""
    pipeline_root: str = ""
    service_account: str = ""
    cache: bool | None = None

    def __post_init__(self) -> None:
        """Refuse what is of another type."""
        for key, value in self.__dict__.items():
            if not (isinstance(value, bool) or value is None if key == "cache" else isinstance(value, str)):
                raise InvalidSpecError(
                    f"The option {key!r} is {value!r}, not {'a bool' if key == 'cache' else 'text'}."
                )


class KubeflowPipelines:
    """A Kubeflow Pipelines server. A job's id is ``<namespace or "-">/<run id>``."""

    name = "kubeflow"

    def __init__(self, client: KfpClient) -> None:
        self._client = client

    @classmethod
    def from_connection(cls, info: ConnectionInfo) -> Self:
        """Return the backend of a connection; :class:`~airflow_mlops.platforms.kfp.KfpClient` has its fields."""
        return cls(KfpClient(info))

    def submit(self, spec: PipelineSpec, *, name: str, owner: TaskIdentity) -> JobHandle:
        """Start the run called *name*, or find it.

        :raises InvalidSpecError: an option or parameter is unknown, missing or of a wrong type, or the server refused
        :raises ConflictError: a run of that name has another spec
        """
        options = RunOptions.from_dict(spec.options)
        mark = Mark.of(spec.digest(), options.namespace or self._client.namespace, owner)
        run = self._run(marks.run_id(name)) or self._start(spec, options, mark, name)
        found = Mark.read(str(run.get("description", "")))
        if found is None or found.spec != mark.spec:
            raise ConflictError(f"The run {name!r} exists with another spec. Clear the task to start a new one.")
        return self._handle(run, found)

    def locate(self, name: str) -> JobHandle | None:
        """Return the run called *name*, or ``None``."""
        run = self._run(marks.run_id(name))
        mark = Mark.read(str(run.get("description", ""))) if run else None
        return self._handle(run, mark) if run and mark else None

    def observe(self, handles: Iterable[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        """Look at many runs: one alone is asked for directly, others fifty at a time."""
        wanted = {_run_id(handle): handle for handle in handles}
        if len(wanted) == 1:
            found = [run for run_id in wanted if (run := self._run(run_id))]
        else:
            found = list(self._listed(wanted))
        return {wanted[run["run_id"]]: status_of(run) for run in found if run.get("run_id") in wanted}

    def cancel(self, handle: JobHandle) -> None:
        """Order the end of a run that goes on. The server refuses it for one that is over, being ended or unknown."""
        try:
            self._client.terminate(_run_id(handle))
        except InvalidSpecError:
            run = self._run(_run_id(handle))
            if run is not None and run.get("state", "") in CAN_END:
                raise

    def collect(self, handle: JobHandle) -> PipelineResult:
        """Return the states of its tasks, and the ids of the artifacts that they made, as ``<task>.<name>``.

        :raises InvalidSpecError: it has not succeeded
        """
        run = self._run(_run_id(handle)) or {}
        if status_of(run).state is not JobState.SUCCEEDED:
            raise InvalidSpecError(f"The run {_called(run, handle)} has not succeeded: it is {run.get('state')!r}.")
        nodes = list(tasks(run))
        outputs = {
            f"{node.get('display_name')}.{key}": list(found.get("artifact_ids", ()))
            for node in nodes
            for key, found in node.get("outputs", {}).items()
        }
        states = {str(node.get("display_name")): str(node.get("state", "")) for node in nodes}
        return PipelineResult(handle, states, outputs)

    def managed(self) -> Iterator[tuple[JobHandle, TaskIdentity]]:
        """Yield every run with a mark, newest first. An owner with very long names is not in the mark."""
        for run in self._client.runs(contains("description", marks.WORD), namespace=self._client.namespace):
            mark = Mark.read(str(run.get("description", "")))
            if mark and mark.owner:
                yield self._handle(run, mark), mark.owner

    # Looking

    def _run(self, run_id: str) -> dict[str, Any] | None:
        try:
            return self._client.run(run_id)
        except NotFoundError:
            return None

    def _listed(self, wanted: Mapping[str, JobHandle]) -> Iterator[dict[str, Any]]:
        for namespace in dict.fromkeys(_namespace(handle) for handle in wanted.values()):
            there = [run_id for run_id, handle in wanted.items() if _namespace(handle) == namespace]
            for start in range(0, len(there), MANY):
                some = one_of("run_id", there[start : start + MANY])
                yield from self._client.runs(some, namespace=namespace)

    def _handle(self, run: Mapping[str, Any], mark: Mark) -> JobHandle:
        run_id = str(run["run_id"])
        return JobHandle(self.name, f"{mark.namespace or '-'}/{run_id}", self._client.console_url(run_id))

    # Starting

    def _start(self, spec: PipelineSpec, options: RunOptions, mark: Mark, name: str) -> dict[str, Any]:
        body = self._body(spec, options, mark, name)
        try:
            run = self._client.create_run(body)
        except PlatformUnavailableError:
            found = self._appeared(body["run_id"])
            if found is None:
                raise
            return found
        if run.get("run_id") != body["run_id"]:
            self._client.terminate(str(run.get("run_id")))
            raise InvalidSpecError(
                f"{self._client.address} does not take the id of a run, so one run for one task cannot be promised. "
                "The run it started was terminated. Use a server of Kubeflow Pipelines 2.0 or later."
            )
        return run

    def _appeared(self, run_id: str) -> dict[str, Any] | None:
        """Look for a run whose start was not answered."""
        for pause in LOST_ANSWER_PAUSES:
            time.sleep(pause)
            try:
                if run := self._run(run_id):
                    return run
            except PlatformUnavailableError:
                continue
        return None

    def _body(self, spec: PipelineSpec, options: RunOptions, mark: Mark, name: str) -> dict[str, Any]:
        """Return the run as the API takes it; everything about it has been checked."""
        config = {"parameters": dict(spec.parameters), "pipeline_root": options.pipeline_root}
        fields = {
            **self._source(spec, options, mark.namespace),
            "run_id": marks.run_id(name),
            "display_name": marks.display_name(name, mark.owner) if mark.owner else name,
            "description": mark.write(),
            "runtime_config": {key: value for key, value in config.items() if value},
            "service_account": options.service_account,
            "experiment_id": self._experiment(options, mark.namespace),
        }
        return {key: value for key, value in fields.items() if value or key == "runtime_config"}

    def _source(self, spec: PipelineSpec, options: RunOptions, namespace: str) -> dict[str, Any]:
        if not isinstance(spec.pipeline, str):
            pipeline = checked(spec.pipeline)
            check_parameters(pipeline, spec.parameters)
            return {"pipeline_spec": pipeline if options.cache is None else with_caching(pipeline, options.cache)}
        if options.cache is not None:
            raise InvalidSpecError(f"Pipeline {spec.pipeline!r} is the server's own: 'cache' cannot change it.")
        name, _, version = spec.pipeline.partition("@")
        found = self._client.pipeline_version(name, version, namespace)
        if known := found.get("pipeline_spec"):
            check_parameters(known, spec.parameters)
        return {"pipeline_version_reference": {key: found[key] for key in ("pipeline_id", "pipeline_version_id")}}

    def _experiment(self, options: RunOptions, namespace: str) -> str:
        """Return the experiment's id; a server with many users wants one, so there "Default" is what it says."""
        name = options.experiment or ("Default" if namespace else "")
        return self._client.experiment_id(name, namespace) if name else ""


def _run_id(handle: JobHandle) -> str:
    return handle.job_id.rpartition("/")[2]


def _namespace(handle: JobHandle) -> str:
    return handle.job_id.rpartition("/")[0].removeprefix("-")


def _called(run: Mapping[str, Any], handle: JobHandle) -> str:
    return repr(str(run.get("display_name") or handle.job_id))
