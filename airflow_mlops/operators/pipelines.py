"""Run a compiled pipeline on its own platform: one run per task, found again after a crash, stopped with its task.

Only flat arguments and the way between Airflow and :mod:`airflow_mlops.training.pipelines` are here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import literal

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.core.residency import carried_by
from airflow_mlops.hooks.pipelines import PipelineHook
from airflow_mlops.links.pipelines import PipelineRunLink
from airflow_mlops.operators.remote_job import RemoteJobOperator
from airflow_mlops.training.contract import JobBackend
from airflow_mlops.training.driver import JobRecord, OnClear, Rules
from airflow_mlops.training.job import TrainingJob
from airflow_mlops.training.pipelines.compiled import read_pipeline
from airflow_mlops.training.pipelines.contract import PipelineSpec
from airflow_mlops.triggers.pipelines import PipelineRunTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["RunPipelineOperator"]


class RunPipelineOperator(RemoteJobOperator):
    """Run one pipeline and return its result as a dict (:class:`~airflow_mlops.training.contract.PipelineResult`).

    A retry finds the run of the try before it; clearing the task stops the run and starts a new one. Parameters are
    compared with the inputs that the pipeline declares before anything is sent. How it is waited for and stopped
    (``conn_id``, ``on_clear``, ``deferrable``, ``poll_interval``) is said in
    :class:`~airflow_mlops.operators.remote_job.RemoteJobOperator`.

    :param pipeline: path of a compiled pipeline (``.yaml``, ``.yml``, ``.json``), the same as a mapping, or the name of
        one that the platform has, as ``name`` (its newest version) or ``name@version``; on Vertex AI also its address.
        SageMaker takes names only. A text is a template, a mapping is not: its own placeholders are written with the
        same braces
    :param parameters: runtime parameters by name; in a DAG with ``render_template_as_native_obj`` templates give
        numbers, lists and mappings, else text
    :param backend: name of an installed pipeline backend
    :param experiment: name of the experiment, made if it is absent
    :param namespace: profile of a platform with many users; by default the connection's
    :param pipeline_root: where artifacts go
    :param service_account: of the pods
    :param cache: whether tasks may take the result of an earlier run; by default as the pipeline was compiled
    :param options: further fields that another backend has
    :param max_runtime: seconds after which the run is stopped from here
    :param residency: the place this run may not leave; data versions among the parameters have theirs besides
    :raises ResidencyError: the connection does not say that the platform is there; nothing was submitted
    :raises JobFailedError: the run failed or was cancelled; with the tasks that failed and what they say
    :raises JobTimeoutError: it was not over in time and was stopped
    """

    template_fields: Sequence[str] = (
        *("pipeline", "parameters", "backend", "conn_id", "experiment", "namespace"),
        *("pipeline_root", "service_account", "options", "max_runtime", "residency"),
    )
    template_fields_renderers = {"parameters": "json", "options": "json"}  # noqa: RUF012
    operator_extra_links = (PipelineRunLink(),)
    trigger_class = PipelineRunTrigger

    def __init__(
        self,
        *,
        pipeline: Mapping[str, Any] | str,
        parameters: Mapping[str, Any] | None = None,
        backend: str = "kubeflow",
        conn_id: str = PipelineHook.default_conn_name,
        experiment: str = "",
        namespace: str = "",
        pipeline_root: str = "",
        service_account: str = "",
        cache: bool | None = None,
        options: Mapping[str, Any] | None = None,
        residency: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(backend=backend, conn_id=conn_id, **{"deadline_margin": 0.0, **kwargs})
        self.pipeline: Any = literal(pipeline) if isinstance(pipeline, Mapping) else pipeline
        self.parameters, self.options = parameters, options
        self.experiment, self.namespace, self.pipeline_root = experiment, namespace, pipeline_root
        self.service_account, self.cache, self.residency = service_account, cache, residency

    def connect(self) -> JobBackend[Any, Any]:
        """Return the pipeline backend."""
        return PipelineHook(self.backend, self.conn_id).get_backend()

    def rules(self) -> Rules:
        """Return what the user allows."""
        rule = OnClear.of(self.on_clear)
        if rule is OnClear.RESUME:
            raise InvalidSpecError("on_clear is 'resume', but a pipeline has no checkpoints. Use 'restart'.")
        return Rules(rule)

    def new_spec(self, record: JobRecord) -> PipelineSpec:  # noqa: ARG002 - it is the same for all
        """Return the spec of every attempt, which goes nowhere it may not."""
        carried = carried_by({f"parameter {name!r}": value for name, value in (self.parameters or {}).items()})
        PipelineHook(self.backend, self.conn_id).require_residency({"this run": self.residency, **carried})
        fields = {
            "experiment": self.experiment,
            "namespace": self.namespace,
            "pipeline_root": self.pipeline_root,
            "service_account": self.service_account,
            "cache": self.cache,
        }
        given = {key: value for key, value in fields.items() if value not in (None, "")}
        return PipelineSpec(
            read_pipeline(self.pipeline),
            parameters=self.parameters or {},
            max_runtime=None if self.max_runtime in (None, "") else float(self.max_runtime),
            options={**given, **(self.options or {})},
        )

    def push_links(
        self,
        context: Context,
        job: TrainingJob[Any, Any],  # noqa: ARG002
        record: JobRecord,
    ) -> None:
        """Push the address of the run."""
        PipelineRunLink.keep(context, record.job.console_url if record.job else "")
