"""Score a challenger and the champion on the same rows and let the gate decide. Thin: the work is in ``evaluation``."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.decisions import GateDecision, Reason, Verdict
from airflow_mlops.core.errors import InvalidSpecError, NotFoundError, close_match
from airflow_mlops.core.identity import text_digest
from airflow_mlops.core.refs import ModelVersion
from airflow_mlops.evaluation.evidence import Evidence, evidence_of
from airflow_mlops.evaluation.policy import Evaluation, GatePolicy, Mode
from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.operators.base import MlopsOperator
from airflow_mlops.registry.attempts import count_attempt
from airflow_mlops.registry.contract import CHALLENGER, CHAMPION
from airflow_mlops.registry.registries.mlflow import MLflowRegistry

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.evaluation.holdout import Holdout

GATE_EVIDENCE = "mlops.gate.evidence"
"""Tag of a version: digest of the evidence of its last gate decision."""


class EvaluateModelOperator(MlopsOperator):
    """Decide whether a challenger may replace the champion. Returns ``Evaluation`` as a dict.

    FAIL and INCONCLUSIVE are answers and do not fail the task. Both models are downloaded, checked against their
    digest and scored in this task on the same rows. The evidence is kept with the challenger's run, its digest as a tag
    of the version.

    :param model_name: registered model
    :param challenger: version number, alias or a ``ModelVersion`` as a dict
    :param champion: the same for the version that serves; when the alias does not exist, only floors are checked
    :param holdout: parquet or CSV file or folder of parquet files, or a dict whose ``data`` or ``path`` is one
    :param holdout_digest: what the holdout must have; the digest of the dict's ``version`` or of the file by default
    :param target: column of the true answers
    :param features: columns the models see; all others by default
    :param positive_label: value of *target* that counts as positive
    :param metric: ``roc_auc``, ``accuracy``, ``log_loss``, ``brier``, ``rmse`` or ``mae``
    :param mode: ``superiority`` or ``non_inferiority``
    :param min_effect: smallest gain worth a promotion, in units of the metric
    :param margin: largest loss that non-inferiority accepts, in units of the metric
    :param alpha: chance to promote a challenger that is no better, over all challengers of one champion together
    :param min_rows: rows below which nothing is decided
    :param min_positives: rows of the rarer class below which nothing is decided
    :param floors: metric -> worst value that is accepted (of a loss: the highest)
    :param allow_pickle: load models that run code of their author while they are loaded
    :raises InvalidSpecError: the holdout is among the data that one of the models was trained on
    :raises IntegrityError: files of a model or of the holdout differ from their digest
    """

    template_fields = (
        "model_name", "challenger", "champion", "holdout", "holdout_digest", "target", "features", "positive_label",
        "metric", "mode", "min_effect", "margin", "alpha", "min_rows", "min_positives", "floors", "mlflow_conn_id",
    )  # fmt: skip

    def __init__(
        self,
        *,
        model_name: str,
        holdout: str | Mapping[str, Any],
        target: str,
        challenger: str | Mapping[str, Any] = CHALLENGER,
        champion: str | Mapping[str, Any] = CHAMPION,
        holdout_digest: str | None = None,
        features: Sequence[str] | None = None,
        positive_label: Any = None,
        metric: str = "roc_auc",
        mode: str = Mode.SUPERIORITY.value,
        min_effect: float = 0.0,
        margin: float = 0.0,
        alpha: float = 0.05,
        min_rows: int = 500,
        min_positives: int = 50,
        floors: Mapping[str, float] | None = None,
        allow_pickle: bool = False,
        mlflow_conn_id: str = MLflowHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name, self.challenger, self.champion = model_name, challenger, champion
        self.holdout, self.holdout_digest, self.target = holdout, holdout_digest, target
        self.features, self.positive_label, self.allow_pickle = features, positive_label, allow_pickle
        self.metric, self.mode, self.min_effect, self.margin, self.alpha = metric, mode, min_effect, margin, alpha
        self.min_rows, self.min_positives, self.floors = min_rows, min_positives, floors
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - Airflow's signature
        """Score, decide, keep the evidence and return the answer."""
        from airflow_mlops.evaluation.holdout import read_holdout

        policy = self._policy()
        path, digest = _located(self.holdout)
        rows = read_holdout(
            path,
            self.target,
            features=self.features or (),
            positive_label=self.positive_label,
            digest=self.holdout_digest or digest,
        )
        with MLflowHook(self.mlflow_conn_id).get_client() as client:
            registry = MLflowRegistry(client)
            challenger, champion = self._contenders(registry)
            _refuse_seen(rows.digest, challenger, champion)
            found = self._decided(registry, challenger, champion, rows, policy)
            found = _keep(registry, challenger, evidence_of(found, policy, challenger, champion))
        self.log.info("%s version %s: %s", self.model_name, challenger.version, found.decision.summary())
        return found.to_dict()

    def _contenders(self, registry: MLflowRegistry) -> tuple[ModelVersion, ModelVersion | None]:
        challenger = _resolved(registry, self.model_name, self.challenger)
        try:
            return challenger, _resolved(registry, self.model_name, self.champion)
        except NotFoundError:
            if self.champion != CHAMPION:
                raise
            return challenger, None

    def _decided(
        self,
        registry: MLflowRegistry,
        challenger: ModelVersion,
        champion: ModelVersion | None,
        rows: Holdout,
        policy: GatePolicy,
    ) -> Evaluation:
        from airflow_mlops.evaluation.gate import decide

        if champion and champion.version == challenger.version:
            found = _same(challenger, policy, len(rows.labels))
        else:
            before = self._scores(registry, champion, rows) if champion else None
            attempt = _attempt(registry, challenger, champion, rows.digest, policy) if champion else 1
            found = decide(before, self._scores(registry, challenger, rows), rows.labels, policy, attempt=attempt)
        return replace(
            found,
            model_name=challenger.name,
            challenger_version=challenger.version,
            champion_version=champion.version if champion else "",
            holdout_digest=rows.digest,
        )

    def _scores(self, registry: MLflowRegistry, model: ModelVersion, rows: Holdout) -> Any:
        from airflow_mlops.evaluation.scoring import score

        with tempfile.TemporaryDirectory(prefix="mlops-model-") as scratch:
            folder = registry.fetch(model, Path(scratch) / "model")
            return score(folder, rows.features, allow_pickle=self.allow_pickle)

    def _policy(self) -> GatePolicy:
        """Build the policy; templated numbers arrive as text."""
        try:
            return GatePolicy(
                metric=self.metric,
                mode=_mode(self.mode),
                min_effect=float(self.min_effect),
                margin=float(self.margin),
                alpha=float(self.alpha),
                min_rows=int(self.min_rows),
                min_positives=int(self.min_positives),
                floors={name: float(value) for name, value in (self.floors or {}).items()},
            )
        except InvalidSpecError:
            raise
        except (TypeError, ValueError) as error:
            raise InvalidSpecError(f"A number of the gate's policy cannot be read: {error}.") from error


def _mode(word: str) -> Mode:
    known = [mode.value for mode in Mode]
    if word not in known:
        raise InvalidSpecError(f"No mode is called {word!r}: {close_match(word, known)}Known: {', '.join(known)}.")
    return Mode(word)


def _located(holdout: str | Mapping[str, Any]) -> tuple[Path, str]:
    """Return where the holdout is and, if the dict tells, its digest."""
    if not isinstance(holdout, Mapping):
        return Path(holdout), ""
    found = holdout.get("data") or holdout.get("path")
    if not isinstance(found, str):
        raise InvalidSpecError(f"The holdout has no 'data' or 'path' that is text, only {sorted(holdout)!r}.")
    version = holdout.get("version")
    return Path(found), str(version.get("digest", "")) if isinstance(version, Mapping) else ""


def _resolved(registry: MLflowRegistry, name: str, wanted: str | Mapping[str, Any]) -> ModelVersion:
    if not isinstance(wanted, Mapping):
        return registry.resolve(name, str(wanted))
    given = ModelVersion.from_dict(wanted)
    if given.name != name:
        raise InvalidSpecError(f"The version given is of model {given.name!r}, not {name!r}.")
    return registry.resolve(name, given.version)


def _refuse_seen(digest: str, *models: ModelVersion | None) -> None:
    """Refuse a holdout that one of the models was trained on: it would know the answers by heart."""
    for model in models:
        for key, value in (model.tags if model else {}).items():
            if key.startswith("mlops.data.") and value == digest:
                raise InvalidSpecError(
                    f"The holdout {digest} is what version {model.version if model else ''} was trained on ({key}). "
                    "Evaluate on rows that no model has seen."
                )


def _same(model: ModelVersion, policy: GatePolicy, rows: int) -> Evaluation:
    message = f"Version {model.version} is the champion already, so there is nothing to decide."
    reason = Reason("same_version", Verdict.INCONCLUSIVE, model.version, "another version", message)
    return Evaluation(GateDecision.of([reason]), policy.metric, policy.mode, rows)


def _attempt(
    registry: MLflowRegistry, challenger: ModelVersion, champion: ModelVersion, holdout: str, policy: GatePolicy
) -> int:
    """Count this decision; the same challenger, holdout and policy are the same decision."""
    subject = [challenger.version, challenger.digest, holdout, policy.to_dict()]
    decision = text_digest(json.dumps(subject, sort_keys=True))[7:23]
    return count_attempt(registry.client, challenger.name, champion=champion.version, decision=decision)


def _keep(registry: MLflowRegistry, challenger: ModelVersion, evidence: Evidence) -> Evaluation:
    """Keep the evidence with the challenger's run and return the evaluation that points to it."""
    found, digest = evidence.evaluation, evidence.digest
    uri = registry.attach(challenger, f"gate/{digest[7:19]}.json", evidence.document())
    registry.client.log(challenger.run_id, metrics=dict(_figures(found)))
    tags = {
        GATE_EVIDENCE: digest,
        "mlops.gate.evidence_uri": uri,
        "mlops.gate.verdict": found.decision.verdict.value,
        "mlops.gate.champion": found.champion_version,
        "mlops.gate.holdout": found.holdout_digest,
    }
    registry.set_version_tags(challenger.name, challenger.version, tags)
    return replace(found, evidence_digest=digest, evidence_uri=uri)


def _figures(found: Evaluation) -> Iterable[tuple[str, float]]:
    yield from ((f"gate.{name}", value) for name, value in found.observed.items())
    if found.gain is not None and found.gain_low is not None:
        yield from (("gate.gain", found.gain), ("gate.gain_low", found.gain_low))
