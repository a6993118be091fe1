"""Register, evaluate, promote and roll back models. Thin: the work is in ``registry`` and ``evaluation``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.core.errors import GateFailedError, IntegrityError, InvalidSpecError
from airflow_mlops.core.refs import DataVersion, ModelVersion
from airflow_mlops.evaluation.evidence import Evidence, read_evidence
from airflow_mlops.evaluation.policy import Evaluation
from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.operators.base import MlopsOperator, airflow_tags
from airflow_mlops.operators.evaluation import GATE_EVIDENCE, EvaluateModelOperator
from airflow_mlops.registry.contract import CHALLENGER, CHAMPION
from airflow_mlops.registry.registries.mlflow import MLflowRegistry
from airflow_mlops.training.cost import cost_tags
from airflow_mlops.training.tracking import data_tags

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["EvaluateModelOperator", "PromoteModelOperator", "RegisterModelOperator", "RollbackModelOperator"]


class RegisterModelOperator(MlopsOperator):
    """Register a model and point an alias to it. Returns ``ModelVersion`` as a dict.

    A retry finds the version of the first try. The version carries the digest of its files, the task that registered
    it, the data it was trained on, the checks that data passed and what the training cost; the tracking run points back
    to the version.

    :param model_name: registered model, created if it is absent
    :param training: ``TrainingResult`` as a dict, such as ``TrainModelOperator`` returns
    :param model_uri: instead of *training*: ``models:/m-<id>`` or ``runs:/<run id>/<model name>``
    :param run_id: tracking run that produced it; known from the other two as a rule
    :param tags: further tags of the version
    :param data: ``DataVersion`` as a dict, what a task that fetched one returned, or input name -> one of these; taken
        from *training* by default
    :param validation: ``ValidationReport`` as a dict
    :param alias: points to the version afterwards, unless it is the champion already; empty for none
    """

    template_fields = (
        "model_name", "training", "model_uri", "run_id", "tags", "data", "validation", "alias", "mlflow_conn_id",
    )  # fmt: skip

    def __init__(
        self,
        *,
        model_name: str,
        training: Mapping[str, Any] | None = None,
        model_uri: str | None = None,
        run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        data: Mapping[str, Any] | None = None,
        validation: Mapping[str, Any] | None = None,
        alias: str = CHALLENGER,
        mlflow_conn_id: str = MLflowHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name, self.training, self.model_uri, self.run_id = model_name, training, model_uri, run_id
        self.tags, self.data, self.validation, self.alias = tags, data, validation, alias
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Register, tag both ways and move the alias."""
        training = self.training or {}
        model_uri = self.model_uri or training.get("model_uri")
        if not model_uri:
            raise InvalidSpecError("There is no model to register: the training result has no model_uri. Log a model.")
        tags = {
            **airflow_tags(context),
            **data_tags(_data_versions(self.data or training.get("data") or {})),
            **_validation_tags(self.validation or {}),
            **cost_tags(training.get("cost") or {}),
            **(self.tags or {}),
        }
        run_id = self.run_id or training.get("run_id") or ""
        with MLflowHook(self.mlflow_conn_id).get_client() as client:
            registry = MLflowRegistry(client)
            model = registry.register(self.model_name, model_uri, run_id=run_id, tags=tags)
            if self.alias and not {self.alias, CHAMPION} & set(model.aliases):
                registry.set_alias(model.name, self.alias, model.version)
            if model.run_id:
                client.log(model.run_id, tags=_back(model))
            model = registry.resolve(model.name, model.version)
        self.log.info("Registered %s version %s with %s", model.name, model.version, model.digest)
        return model.to_dict()


class PromoteModelOperator(MlopsOperator):
    """Make the challenger of a passed evaluation the champion. Returns ``{"promoted", "model", "previous"}``.

    The evidence is read back and must be the one that was decided on, for these very files. The champion must still be
    the one the challenger was compared with. What did not pass is skipped, and with it what is downstream.

    :param model_name: registered model
    :param evaluation: ``Evaluation`` as a dict, such as ``EvaluateModelOperator`` returns
    :param expected: version that is champion now; the one of the evaluation by default
    :param on_rejected: ``skip``, ``fail`` or ``continue`` (returns ``promoted`` false)
    :raises IntegrityError: the evidence or the model was changed after the decision
    :raises ConflictError: somebody else promoted meanwhile
    :raises GateFailedError: it did not pass and *on_rejected* is ``fail``
    """

    template_fields = ("model_name", "evaluation", "expected", "on_rejected", "mlflow_conn_id")

    def __init__(
        self,
        *,
        model_name: str,
        evaluation: Mapping[str, Any],
        expected: str | None = None,
        on_rejected: str = "skip",
        mlflow_conn_id: str = MLflowHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name, self.evaluation, self.expected = model_name, evaluation, expected
        self.on_rejected, self.mlflow_conn_id = on_rejected, mlflow_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Check the evidence and move the champion."""
        if self.on_rejected not in ("skip", "fail", "continue"):
            raise InvalidSpecError(f"on_rejected is 'skip', 'fail' or 'continue', got {self.on_rejected!r}.")
        evaluation = Evaluation.from_dict(self.evaluation)
        if not evaluation.decision.passed:
            return self._rejected(evaluation)
        with MLflowHook(self.mlflow_conn_id).get_client() as client:
            registry = MLflowRegistry(client)
            challenger = registry.resolve(self.model_name, evaluation.challenger_version)
            evidence = read_evidence(registry.read(evaluation.evidence_uri), evaluation.evidence_digest)
            _require_agreement(evaluation, evidence, challenger)
            expected = self.expected or evaluation.champion_version or None
            model = registry.promote(self.model_name, expected=expected, to=challenger.version)
        self.log.info("%s version %s is the champion now; it was %s", model.name, model.version, expected or "none")
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = {
                "model": model.name,
                "version": model.version,
                "digest": model.digest,
                "evidence": evaluation.evidence_digest,
            }
        return {"promoted": True, "model": model.to_dict(), "previous": expected}

    def _rejected(self, evaluation: Evaluation) -> dict[str, Any]:
        subject = f"{self.model_name} version {evaluation.challenger_version} is not promoted"
        if self.on_rejected == "fail":
            raise GateFailedError(evaluation.decision, subject)
        if self.on_rejected == "skip":
            raise AirflowSkipException(f"{subject}: {evaluation.decision.summary()}")
        self.log.warning("%s: %s", subject, evaluation.decision.summary())
        return {"promoted": False, "model": None, "previous": evaluation.champion_version or None}


class RollbackModelOperator(MlopsOperator):
    """Make the version before the last promotion the champion again. Returns ``ModelVersion`` as a dict.

    A retry changes nothing more. Traffic is not touched: that is ``RollbackDeploymentOperator``.

    :param model_name: registered model
    :param promoted: take back this promotion and no other: what ``PromoteModelOperator`` returned. The task is skipped
        when it promoted nothing, or when another version is champion by now
    :raises NotFoundError: no version was promoted over another one yet
    """

    template_fields = ("model_name", "promoted", "mlflow_conn_id")

    def __init__(
        self,
        *,
        model_name: str,
        promoted: Mapping[str, Any] | None = None,
        mlflow_conn_id: str = MLflowHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name, self.promoted, self.mlflow_conn_id = model_name, promoted, mlflow_conn_id
        self._one_promotion = promoted is not None

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - Airflow's signature
        """Roll back and return the champion."""
        with MLflowHook(self.mlflow_conn_id).get_client() as client:
            registry = MLflowRegistry(client)
            ours = _promotion(registry, self.model_name, self.promoted) if self._one_promotion else None
            model = registry.rollback(self.model_name, expected=ours)
        self.log.info("%s version %s is the champion again", model.name, model.version)
        return model.to_dict()


def _promotion(registry: MLflowRegistry, name: str, promoted: Mapping[str, Any] | None) -> str:
    """Return the version to take back. Skip the task unless it was promoted and is the champion, or is taken back."""
    if not promoted or not promoted.get("promoted"):
        raise AirflowSkipException(f"Nothing of {name!r} was promoted in this run, so nothing is taken back.")
    ours, now = promoted["model"]["version"], registry.resolve(name, CHAMPION).version
    if now not in (ours, promoted.get("previous")):
        raise AirflowSkipException(f"Version {ours} of {name!r} is not the champion any more, version {now} is.")
    return str(ours)


def _data_versions(data: Mapping[str, Any]) -> dict[str, DataVersion]:
    """Return input name -> version. One version alone is the input ``train``."""
    named = {"train": data} if "digest" in data or "version" in data else data
    return {name: _data_version(value) for name, value in named.items()}


def _data_version(value: Mapping[str, Any]) -> DataVersion:
    """Read a version, or what a task that fetched one returned: ``{"version": ..., "path": ...}``."""
    found = value.get("version", value)
    known = {field.name for field in fields(DataVersion)}
    return DataVersion.from_dict({key: item for key, item in found.items() if key in known})


def _validation_tags(report: Mapping[str, Any]) -> dict[str, str]:
    if report.get("status") in ("fail", "error"):
        raise InvalidSpecError(
            f"The data did not pass {report.get('suite')!r} ({report['status']}). No model of it is registered."
        )
    names = ("status", "suite", "suite_digest", "report_uri")
    return {f"mlops.validation.{name}": str(report[name]) for name in names if report.get(name)}


def _back(model: ModelVersion) -> dict[str, str]:
    """Return the tags that lead from the run to the version."""
    return {"mlops.model": model.name, "mlops.model_version": model.version, "mlops.model_digest": model.digest}


def _require_agreement(evaluation: Evaluation, evidence: Evidence, challenger: ModelVersion) -> None:
    """Refuse a decision that is not the kept one, or that was about other files or another model.

    :raises IntegrityError: naming what differs
    """
    same = {
        "decision": evidence.evaluation == replace(evaluation, evidence_digest="", evidence_uri=""),
        "model name": evidence.evaluation.model_name == challenger.name,
        "model digest": bool(challenger.digest) and evidence.challenger_digest == challenger.digest,
        "evidence digest": challenger.tags.get(GATE_EVIDENCE) == evaluation.evidence_digest,
    }
    if wrong := [what for what, agrees in same.items() if not agrees]:
        raise IntegrityError(
            f"The {', '.join(wrong)} of {challenger.name!r} version {challenger.version} changed after the decision. "
            "Nothing was promoted. Evaluate again."
        )
