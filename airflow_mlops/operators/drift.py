"""Profile data, and tell whether new data drifted from it. Thin: the work is in the drift engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias
from airflow.sdk.exceptions import DownstreamTasksSkipped

from airflow_mlops.core.decisions import Verdict
from airflow_mlops.core.errors import GateFailedError, InvalidSpecError, close_match
from airflow_mlops.core.extras import extra
from airflow_mlops.core.refs import ModelVersion
from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.operators.base import MlopsOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.drift.profile import DriftProfile
    from airflow_mlops.drift.report import DriftReport
    from airflow_mlops.platforms.mlflow import MLflowClient

__all__ = ["DetectDriftOperator", "ProfileDataOperator"]

_ON_DRIFT = ("continue", "fail", "skip_downstream")
_WITHOUT_DRIFT = ("continue", "skip_downstream")


class ProfileDataOperator(MlopsOperator):
    """Count a data set into a drift profile, and keep it in a file, with a registered model, or both.

    Reads the data once, a column of a row group at a time. Returns ``{"profile_uri", "path", "rows", "columns"}``:
    *profile_uri* is the address in MLflow, or that of the file; what was not asked for is absent.

    :param data: path of a parquet or CSV file or folder, or the dict that a data operator returned
    :param file: file or folder below that path
    :param columns: only these columns
    :param exclude: not these, for example row ids
    :param categorical: columns of numbers that are codes
    :param target: the column that only labelled data has
    :param predictions: data that holds the model's answers to this very data, as *data*
    :param prediction_column: the column of *predictions* with the score
    :param output_path: JSON file to write
    :param model: the ``ModelVersion`` dict to keep the profile with, as artifact ``drift/profile.json`` of its run
    :param mlflow_conn_id: connection of the registry
    :raises NotFoundError: there is no data, or a column does not exist
    """

    template_fields = (
        "data", "file", "columns", "exclude", "categorical", "target", "predictions", "prediction_column",
        "output_path", "model", "mlflow_conn_id",
    )  # fmt: skip

    def __init__(
        self,
        *,
        data: str | Mapping[str, Any],
        file: str | None = None,
        columns: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        categorical: Sequence[str] | None = None,
        target: str = "",
        predictions: str | Mapping[str, Any] | None = None,
        prediction_column: str = "prediction",
        output_path: str | None = None,
        model: Mapping[str, Any] | None = None,
        mlflow_conn_id: str = MLflowHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data, self.file, self.columns, self.exclude = data, file, columns, exclude
        self.categorical, self.target, self.predictions = categorical, target, predictions
        self.prediction_column, self.output_path, self.model = prediction_column, output_path, model
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - Airflow's signature
        """Build the profile, keep it and return where it is."""
        if not (self.output_path or self.model):
            raise InvalidSpecError(
                "The profile would be lost. Give output_path=<file>, model=<registered version> or both."
            )
        profile = self._profile()
        self.log.info("Profiled %d rows, %d columns.", profile.rows, len(profile.columns))
        result: dict[str, Any] = {"rows": profile.rows, "columns": list(profile.columns)}
        if self.output_path:
            path = profile.write(Path(self.output_path)).absolute()
            result |= {"path": str(path), "profile_uri": path.as_uri()}
        if self.model:
            result["profile_uri"] = self._store(profile, ModelVersion.from_dict(self.model))
        return result

    def _profile(self) -> DriftProfile:
        with extra("drift"):
            from airflow_mlops.drift.reference import profile_data

        return profile_data(
            self.data,
            file=self.file,
            columns=self.columns or (),
            exclude=self.exclude or (),
            categorical=self.categorical or (),
            target=self.target,
            predictions=self.predictions,
            prediction_column=self.prediction_column,
        )

    def _store(self, profile: DriftProfile, model: ModelVersion) -> str:
        from airflow_mlops.drift.stored import store_profile

        with MLflowHook(self.mlflow_conn_id).get_client() as client:
            return store_profile(client, model, profile)


class DetectDriftOperator(MlopsOperator):
    """Compare a window of data with a reference profile, and start a retraining only when it drifted.

    Returns the ``DriftReport`` as a dict with the most severe *max_columns* columns. The verdict is ``fail`` (drift),
    ``pass`` or ``inconclusive`` (too little data), which is never treated as drift. The whole report is kept with the
    model and in *report_path*; the model version's tags ``airflow_mlops.drift.*`` hold its gist.

    :param current: path of a parquet or CSV file or folder, the dict that a data operator returned, or
        ``{"capture_dir", "endpoint", "revision"}`` for traffic that the local gateway captured
    :param file: file or folder below that path
    :param reference: profile file, ``mlflow-artifacts:`` address, the dict ``ProfileDataOperator`` returned, or
        reference data; by default the profile that the model carries
    :param model: the ``ModelVersion`` dict that is watched
    :param model_name: instead of *model*: the registered model, with *alias*
    :param alias: an alias or a version number
    :param since: first moment of the window: seconds since 1970 or ISO 8601
    :param until: the moment after the window
    :param time_column: column that tells the time, for files with *since* or *until*
    :param exclude: columns that are not looked at
    :param thresholds: statistic -> effect that matters; the defaults are in ``airflow_mlops.drift.policy``
    :param min_rows: rows both sides need; below it the verdict is ``inconclusive``
    :param min_drifted_columns: drifted columns from which on it is drift
    :param max_drifted_share: weighted share of drifted columns that is still fine
    :param weights: column -> weight in that share, for example its importance
    :param on_drift: ``continue``, ``fail`` the task, or ``skip_downstream``
    :param without_drift: ``continue`` or ``skip_downstream``
    :param retrain_asset: asset that gets an event on drift and only then, with ``reason``, ``columns``, ``verdict``
        as extra. It is emitted through an alias among the outlets: a plain outlet's event comes with every success
    :param report_path: JSON file for the whole report
    :raises NotFoundError: there is no reference profile, or no data at the path
    :raises GateFailedError: it drifted and *on_drift* is ``fail``
    """

    template_fields = (
        "current", "file", "reference", "model", "model_name", "alias", "since", "until", "time_column", "exclude",
        "thresholds", "min_rows", "min_drifted_columns", "max_drifted_share", "weights", "on_drift", "without_drift",
        "report_path", "mlflow_conn_id",
    )  # fmt: skip

    def __init__(
        self,
        *,
        current: str | Mapping[str, Any],
        file: str | None = None,
        reference: str | Mapping[str, Any] | None = None,
        model: Mapping[str, Any] | None = None,
        model_name: str = "",
        alias: str = "champion",
        since: float | str | None = None,
        until: float | str | None = None,
        time_column: str = "",
        exclude: Sequence[str] | None = None,
        thresholds: Mapping[str, float | None] | None = None,
        min_rows: int = 200,
        min_drifted_columns: int = 1,
        max_drifted_share: float = 0.0,
        weights: Mapping[str, float] | None = None,
        on_drift: str = "continue",
        without_drift: str = "continue",
        retrain_asset: Asset | None = None,
        report_path: str | None = None,
        max_columns: int = 50,
        mlflow_conn_id: str = MLflowHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        if retrain_asset is not None:
            kwargs["outlets"] = [*(kwargs.get("outlets") or ()), _alias(retrain_asset)]
        super().__init__(**kwargs)
        self.current, self.file, self.reference, self.model = current, file, reference, model
        self.model_name, self.alias, self.since, self.until = model_name, alias, since, until
        self.time_column, self.exclude, self.thresholds, self.min_rows = time_column, exclude, thresholds, min_rows
        self.min_drifted_columns, self.max_drifted_share = min_drifted_columns, max_drifted_share
        self.weights, self.on_drift, self.without_drift = weights, on_drift, without_drift
        self.retrain_asset, self.report_path, self.max_columns = retrain_asset, report_path, max_columns
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Detect, keep the report, emit the asset event on drift, and return the report."""
        _one_of("on_drift", self.on_drift, _ON_DRIFT)
        _one_of("without_drift", self.without_drift, _WITHOUT_DRIFT)
        model = self._model()
        report = self._report(model)
        for line in report.table().splitlines():
            self.log.info("%s", line)
        result = report.brief(self.max_columns) | {"report_uri": self._keep(report, model)}
        drifted = report.verdict is Verdict.FAIL
        if drifted and self.retrain_asset is not None:
            event: dict[str, Any] = {"reason": "drift", "columns": list(report.drifted[:20])}
            event["verdict"] = report.verdict.value
            context["outlet_events"][_alias(self.retrain_asset)].add(self.retrain_asset, extra=event)
        self._go_on(self.on_drift if drifted else self.without_drift, report, result, context)
        return result

    def _model(self) -> ModelVersion | None:
        if self.model:
            return ModelVersion.from_dict(self.model)
        if self.model_name:
            found: ModelVersion = MLflowHook(self.mlflow_conn_id).get_registry().resolve(self.model_name, self.alias)
            return found
        return None

    def _report(self, model: ModelVersion | None) -> DriftReport:
        with extra("drift"):
            from airflow_mlops.drift.detect import detect
            from airflow_mlops.drift.policy import DriftPolicy
            from airflow_mlops.drift.reference import profile_window
            from airflow_mlops.drift.stored import find_reference
        excluded = tuple(self.exclude or ())
        policy = DriftPolicy(
            thresholds=self.thresholds or {},
            min_rows=int(self.min_rows),
            min_drifted_columns=int(self.min_drifted_columns),
            max_drifted_share=float(self.max_drifted_share),
            weights=self.weights or {},
            ignore=excluded,
        )
        reference = find_reference(self._client, self.reference, model)
        when: dict[str, Any] = {"since": self.since, "until": self.until, "time_column": self.time_column}
        window = profile_window(self.current, reference, file=self.file, exclude=excluded, **when)
        return detect(reference, window, policy)

    def _keep(self, report: DriftReport, model: ModelVersion | None) -> str:
        from airflow_mlops.drift.stored import keep_report

        return keep_report(self._client, report, model, self.report_path)

    def _client(self) -> MLflowClient:
        return MLflowHook(self.mlflow_conn_id).get_client()

    def _go_on(self, how: str, report: DriftReport, result: dict[str, Any], context: Context) -> None:
        """Fail the task, skip what comes after it, or do nothing. The report is the task's result in every case."""
        if how == "continue":
            return
        context["ti"].xcom_push("return_value", result)
        if how == "fail":
            raise GateFailedError(report.decision, "The data drifted")
        skipped = [t.task_id for t in context["task"].get_direct_relatives(upstream=False) if not t.is_teardown]
        if skipped:
            raise DownstreamTasksSkipped(tasks=skipped)  # type: ignore[no-untyped-call]


def _alias(asset: Asset) -> AssetAlias:
    """Return the alias whose events are drift: an asset behind an alias gets an event only when one is added."""
    return AssetAlias(f"drift:{asset.name}")


def _one_of(argument: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InvalidSpecError(f"{argument} is {value!r}: {close_match(value, known)}It can be {', '.join(known)}.")
