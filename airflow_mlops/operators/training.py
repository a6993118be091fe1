"""Train a model on any platform: one job per task, found again after a crash, stopped when the task is stopped.

Only flat arguments and the way between Airflow and :mod:`airflow_mlops.training` are here.
"""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import InvalidSpecError, MlopsError, close_match
from airflow_mlops.hooks.training import TaskRecords, TrainingHook
from airflow_mlops.links.training import TrackingRunLink, TrainingJobLink
from airflow_mlops.operators.base import MlopsOperator, airflow_tags, task_identity
from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.training.contract import Resources, TrainingResult, TrainingSpec
from airflow_mlops.training.driver import MAX_PREEMPTIONS, MAX_TRIGGER_FAILURES, JobRecord, OnClear, Rules
from airflow_mlops.training.job import DEADLINE_MARGIN, TrainingJob
from airflow_mlops.training.launch import ATTEMPT, checkpoint_address, read_inputs
from airflow_mlops.training.tracking import MLflowTracking, credentials, exported
from airflow_mlops.triggers.training import TrainingJobTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["TrainModelOperator"]

SETTLE = 1.0
"""Seconds a job has to end at once, before its task is deferred."""

KILL_BUDGET = 4.0
"""Seconds the cancellation has, before Airflow kills the worker's process."""

DEFERRAL_GRACE = 120.0
"""Seconds past the job's deadline that the triggerer has to fire, before Airflow itself wakes the task."""


class TrainModelOperator(MlopsOperator):
    """Run one training job and return its result as a dict (:class:`~airflow_mlops.training.contract.TrainingResult`).

    A retry finds the job of the try before it; clearing the task stops the job and starts a new one. The job sees
    ``MLOPS_JOB_NAME``, ``MLOPS_ATTEMPT``, ``MLOPS_INPUT_<NAME>`` and ``MLOPS_OUTPUT``, a file to which it may write
    ``{"model_uri": ..., "metrics": {...}, "run_id": ...}``; with *experiment* also ``MLFLOW_TRACKING_URI``,
    ``MLFLOW_EXPERIMENT_ID`` and ``MLFLOW_RUN_ID`` of a run that is made for it and closed after it.

    :param command: program and fixed arguments; a text is split as a shell would, without running a shell
    :param backend: name of an installed training backend
    :param conn_id: connection of the platform; the local backend needs none
    :param args: further arguments
    :param image: container image
    :param env: plain environment variables
    :param secret_env: variable -> name of the secret; for the local backend a variable of the worker
    :param inputs: name -> what a task that fetched data returned, a data version, or a path
    :param parameters: passed as ``--name value`` and logged to the tracking run
    :param node_resources: ``cpus``, ``memory_mib``, ``gpus``, ``instance_type`` of each node
    :param nodes: number of machines
    :param spot: cheaper machines that may be taken away; a preempted job starts again from its checkpoint
    :param checkpoint: folder or address below which checkpoints go. The job sees ``MLOPS_CHECKPOINT_DIR``, a place
        below it that is the same for all attempts of this task, and another one after a clear
    :param max_runtime: seconds after which the platform ends the job
    :param deadline_margin: seconds beyond *max_runtime* for queueing, after which the job is stopped from here. The
        task's ``execution_timeout`` counts too, from the submission on, also while the task is deferred
    :param on_clear: what clearing the task means for its job: ``restart`` stops it and starts from nothing, ``resume``
        stops it and goes on from its checkpoints, ``reattach`` keeps it if it runs or has succeeded
    :param options: the platform's own further fields
    :param experiment: name of the MLflow experiment; ``None`` for no tracking run
    :param mlflow_conn_id: connection of the MLflow server
    :param code_commit: git commit of the training code, tagged on the run; by default the version of the DAG bundle
    :param max_preemptions: how often a preempted job is started again; after that once more without *spot*
    :param deferrable: wait in the triggerer instead of in the worker
    :param poll_interval: seconds between two looks at the job
    :param logging_interval: seconds after which a deferred task comes back to copy what the job printed; ``None`` to
        copy it when the job is over. Each time costs the start of a task
    :raises JobFailedError: the job failed or was cancelled; with its exit code, last lines and the place of its log
    :raises OutOfMemoryError: its nodes had too little memory; like the one above never tried again
    :raises QuotaExceededError: the account may not use that much now; tried again
    :raises JobInterruptedError: the platform broke it; tried again
    :raises PreemptedError: it was preempted too often; tried again
    :raises JobTimeoutError: it was not over in time and was stopped
    """

    template_fields: Sequence[str] = (
        *("backend", "conn_id", "command", "args", "image", "env", "secret_env", "inputs", "parameters"),
        *(
            "node_resources",
            "nodes",
            "checkpoint",
            "max_runtime",
            "options",
            "experiment",
            "mlflow_conn_id",
            "code_commit",
        ),
    )
    template_fields_renderers = {"env": "json", "inputs": "json", "parameters": "json", "options": "json"}  # noqa: RUF012
    operator_extra_links = (TrainingJobLink(), TrackingRunLink())

    def __init__(
        self,
        *,
        command: Sequence[str] | str,
        backend: str = "local",
        conn_id: str | None = None,
        args: Sequence[str] = (),
        image: str = "",
        env: Mapping[str, str] | None = None,
        secret_env: Mapping[str, str] | None = None,
        inputs: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
        node_resources: Mapping[str, Any] | None = None,
        nodes: int | str = 1,
        spot: bool = False,
        checkpoint: str = "",
        max_runtime: float | str | None = None,
        options: Mapping[str, Any] | None = None,
        experiment: str | None = None,
        mlflow_conn_id: str = "mlflow_default",
        code_commit: str = "",
        deadline_margin: float = DEADLINE_MARGIN,
        on_clear: str = OnClear.RESTART,
        max_preemptions: int = MAX_PREEMPTIONS,
        deferrable: bool = True,
        poll_interval: float = 10.0,
        logging_interval: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backend, self.conn_id = backend, conn_id
        self.command, self.args, self.image = command, args, image
        self.env, self.secret_env, self.inputs = env, secret_env, inputs
        self.parameters, self.node_resources, self.options = parameters, node_resources, options
        self.nodes, self.spot, self.checkpoint, self.max_runtime = nodes, spot, checkpoint, max_runtime
        self.experiment, self.mlflow_conn_id, self.code_commit = experiment, mlflow_conn_id, code_commit
        self.deadline_margin, self.on_clear, self.max_preemptions = deadline_margin, on_clear, max_preemptions
        self.deferrable, self.poll_interval, self.logging_interval = deferrable, poll_interval, logging_interval
        self._job: TrainingJob[TrainingSpec, TrainingResult] | None = None
        self._linked = False

    def execute(self, context: Context) -> dict[str, Any]:
        """Start the job or find it, and bring it to its end."""
        return self._go(context, entering=True, patience=SETTLE if self.deferrable else None)

    def resume(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Go on after the trigger fired. What it said is only why: the job itself is looked at again."""
        self.log.info("The trigger fired: %s.", event.get("why"))
        return self._go(context, entering=False, patience=0.0)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on even when waiting broke: the job did not. After five times the worker waits itself."""
        if next_method != "__fail__":
            return super().resume_execution(next_method, next_kwargs, context)
        failures = self._new_job(context).note_trigger_failure()
        self.log.warning("The trigger broke (%d times): %s", failures, (next_kwargs or {}).get("error"))
        return self._go(context, entering=False, patience=0.0 if failures <= MAX_TRIGGER_FAILURES else None)

    def on_kill(self) -> None:
        """Stop the job. In a thread: the signal may have come while this one was talking to Airflow."""
        if self._job is not None:
            thread = threading.Thread(target=self._kill, args=(self._job,))
            thread.start()
            thread.join(KILL_BUDGET)

    def _kill(self, job: TrainingJob[TrainingSpec, TrainingResult]) -> None:
        try:
            job.kill()
        except MlopsError as error:
            self.log.warning("The job could not be cancelled: %s", error)

    def _go(self, context: Context, *, entering: bool, patience: float | None) -> dict[str, Any]:
        self._job = job = self._new_job(context)
        interval = self.poll_interval if patience is None else SETTLE / 5
        with exported(self._credentials()):
            try:
                found = job.advance(entering=entering)
            finally:
                self._push_links(context, job)
            found = job.wait(found, interval, patience=patience)
        return self.finish(context, found.to_dict()) if isinstance(found, TrainingResult) else self._defer(found)

    def finish(self, context: Context, result: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - for subclasses
        """Return what the task returns. Override it to look at the result of a job that succeeded, or to refuse it."""
        return result

    def _defer(self, record: JobRecord) -> NoReturn:
        job = record.job.to_dict() if record.job else {}
        now, deadline = time.time(), record.deadline
        alarms = [deadline, now + self.logging_interval if self.logging_interval else None]
        alarm = min((found for found in alarms if found is not None), default=None)
        where = (self.backend, job, self.conn_id, self.poll_interval, alarm)
        trigger = TrainingJobTrigger(*where, on_clear=self.on_clear)
        grace = min(self.deadline_margin, DEFERRAL_GRACE)
        timeout = None if deadline is None else timedelta(seconds=max(0.0, deadline - now) + grace)
        self.defer(trigger=trigger, method_name="resume", timeout=timeout)

    def _new_job(self, context: Context) -> TrainingJob[TrainingSpec, TrainingResult]:
        return TrainingJob(
            backend=TrainingHook(self.backend, self.conn_id).get_backend(),
            records=TaskRecords(context["task_state_store"]),
            owner=task_identity(context),
            generation=context["ti"].max_tries,
            spec=self._spec,
            tracking=self._tracking(context),
            say=self.log.info,
            rules=Rules(on_clear_rule(self.on_clear), self.max_preemptions, self.spot),
            limit=self.execution_timeout.total_seconds() if self.execution_timeout else None,
            margin=self.deadline_margin,
        )

    def _spec(self, record: JobRecord) -> TrainingSpec:
        versions, paths = read_inputs(self.inputs or {})
        return TrainingSpec(
            command=words(self.command),
            args=tuple(self.args),
            image=self.image,
            env={**paths, ATTEMPT: str(record.attempt), **(self.env or {})},
            secret_env=self.secret_env or {},
            inputs=versions,
            parameters=self.parameters or {},
            resources=Resources.from_dict(self.node_resources or {}),
            nodes=int(self.nodes),
            spot=self.spot and not record.on_demand,
            checkpoint=checkpoint_address(self.checkpoint, record.checkpoint),
            max_runtime=None if self.max_runtime in (None, "") else float(self.max_runtime),
            options=self.options or {},
        )

    def _mlflow(self) -> ConnectionInfo | None:
        return ConnectionInfo.of(TrainingHook.get_connection(self.mlflow_conn_id)) if self.experiment else None

    def _credentials(self) -> dict[str, str]:
        """Return what the job needs to reach the tracking server and what must not be in its spec."""
        info = self._mlflow()
        return credentials(info) if info else {}

    def _tracking(self, context: Context) -> MLflowTracking | None:
        info = self._mlflow()
        if info is None or not self.experiment:
            return None
        bundle = getattr(context["ti"], "bundle_instance", None)
        commit = self.code_commit or str(getattr(bundle, "version", None) or "")
        tags = {**airflow_tags(context), **({"mlflow.source.git.commit": commit} if commit else {})}
        return MLflowTracking(MLflowClient(info), self.experiment, tags, {name: name for name in credentials(info)})

    def _push_links(self, context: Context, job: TrainingJob[TrainingSpec, TrainingResult]) -> None:
        """Push the addresses of job and run, unless this try has."""
        record = job.records.load()
        if self._linked or record is None or record.job is None:
            return
        self._linked = True
        TrainingJobLink.keep(context, record.job.console_url)
        if isinstance(job.tracking, MLflowTracking) and record.run_id:
            TrackingRunLink.keep(context, job.tracking.url(record.run_id))


def words(command: Sequence[str] | str) -> tuple[str, ...]:
    """Return a command as its words."""
    return tuple(shlex.split(command)) if isinstance(command, str) else tuple(command)


def on_clear_rule(word: str) -> OnClear:
    """Return what clearing the task means.

    :raises InvalidSpecError: *word* is none of the rules
    """
    known = [rule.value for rule in OnClear]
    if word not in known:
        raise InvalidSpecError(
            f"on_clear is {word!r}: {close_match(word, known)}It is one of {', '.join(map(repr, known))}."
        )
    return OnClear(word)
