"""Search parameters with a platform's own tuning service: one search per task, as sure as a training job.

For a search that runs on any backend and asks no service, see ``airflow_mlops.groups.sweep``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.hooks.tuning import TuningHook
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.training.contract import JobBackend
from airflow_mlops.training.driver import JobRecord, OnClear, Rules
from airflow_mlops.training.search import Direction
from airflow_mlops.training.search_space import read_space
from airflow_mlops.training.tuning.contract import TuningSpec
from airflow_mlops.triggers.tuning import TuningJobTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["TuneModelOperator"]


class TuneModelOperator(TrainModelOperator):
    """Let the platform try parameters, and return the best trial's result as ``TrainModelOperator`` would.

    The XCom ``tuning`` has all trials. It takes the arguments of
    :class:`~airflow_mlops.operators.training.TrainModelOperator` for what one trial runs; *parameters* are the fixed
    ones, *max_runtime* is that of one trial. Every trial reports *metric* in ``MLOPS_OUTPUT``.

    :param backend: ``sagemaker``, ``vertex`` or ``azureml``
    :param space: what is searched: name -> ``{"low": 0.001, "high": 0.1, "log": true}`` (``step``, ``type``) or
        ``{"choices": [...]}``; a platform that has no such range refuses it by name
    :param metric: name of the metric that every trial reports
    :param direction: ``maximize`` or ``minimize``
    :param max_trials: how many trials there are at most
    :param parallel_trials: how many run at the same time
    :param max_search_runtime: seconds after which the whole search is stopped
    :param tuning_options: the tuning service's own further fields
    :raises JobFailedError: the search failed, or no trial has a value
    """

    template_fields: Sequence[str] = (
        *TrainModelOperator.template_fields,
        *("space", "metric", "direction", "max_trials", "parallel_trials", "max_search_runtime", "tuning_options"),
    )
    trigger_class = TuningJobTrigger

    def __init__(
        self,
        *,
        space: Mapping[str, Any],
        metric: str,
        direction: str = Direction.MAXIMIZE,
        max_trials: int | str = 10,
        parallel_trials: int | str = 2,
        max_search_runtime: float | str | None = None,
        tuning_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.space, self.metric, self.direction = space, metric, direction
        self.max_trials, self.parallel_trials = max_trials, parallel_trials
        self.max_search_runtime, self.tuning_options = max_search_runtime, tuning_options

    def connect(self) -> JobBackend[Any, Any]:
        """Return the tuning backend."""
        return TuningHook(self.backend, self.conn_id).get_backend()

    def rules(self) -> Rules:
        """Return what the user allows."""
        rule = OnClear.of(self.on_clear)
        if rule is OnClear.RESUME:
            raise InvalidSpecError("on_clear is 'resume', but a search has no checkpoints of its own. Use 'restart'.")
        if self.experiment:
            raise InvalidSpecError(
                "'experiment' is for single jobs: a tuning service starts its trials itself. Let the program start its "
                "own runs, or use airflow_mlops.groups.sweep, which gives every trial a run."
            )
        return Rules(rule)

    def new_spec(self, record: JobRecord) -> Any:
        """Return the spec of the search."""
        read_space(self.space)
        if both := sorted(set(self.space) & set(self.parameters or {})):
            raise InvalidSpecError(f"The parameters {both} are both fixed and searched. Keep them in one place.")
        return TuningSpec(
            training=super().new_spec(record),
            space=self.space,
            metric=self.metric,
            direction=str(Direction.of(self.direction)),
            max_trials=int(self.max_trials),
            parallel_trials=int(self.parallel_trials),
            max_runtime=None if self.max_search_runtime in (None, "") else float(self.max_search_runtime),
            options=self.tuning_options or {},
        )

    def told(self, job: Any, result: Any) -> dict[str, Any]:  # noqa: ARG002
        """Return the whole result of the search."""
        return dict(result.to_dict())

    def finish(self, context: Context, result: dict[str, Any]) -> dict[str, Any]:
        """Push all trials, and return what the best one left behind."""
        context["ti"].xcom_push(key="tuning", value={name: result[name] for name in result if name != "best"})
        return dict(result["best"])
