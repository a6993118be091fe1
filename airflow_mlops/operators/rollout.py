"""The canary operator. Import it from ``airflow_mlops.operators.deployment``.

The traffic moves in the trigger, never here: this writes down what served before, waits, and makes the task's state the
truth. However the task ends, all traffic is on the new revision or back where it was.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.core.decisions import GateDecision
from airflow_mlops.core.errors import GateFailedError, InvalidSpecError
from airflow_mlops.deployment.contract import DeploymentTarget, EndpointStatus, RevisionState
from airflow_mlops.deployment.driver import (
    Outcome,
    RolloutResult,
    as_it_serves,
    require_revision,
    restore,
)
from airflow_mlops.deployment.guards import Limits, load_guard
from airflow_mlops.deployment.rollout import OnInconclusive, RolloutPlan, same_split
from airflow_mlops.hooks.deployment import DeploymentHook
from airflow_mlops.links.deployment import EndpointLink
from airflow_mlops.operators.base import MlopsOperator
from airflow_mlops.triggers.deployment import CanaryRolloutTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

PLAN = "rollout_plan"
RESULT = "rollout_result"

MARGIN = 120.0
"""Seconds that a roll-out gets beyond its steps, and the trigger beyond its own deadline."""


class CanaryRolloutOperator(MlopsOperator):
    """Move the traffic to a revision in steps, as long as it does no worse than the one that serves now.

    Deferred: no worker waits. Each step is watched for *bake* seconds and compared with the old revision over the same
    window; see ``airflow_mlops.deployment.guards`` for the rules and ``deployment.rollout`` for how alpha is spent. A
    failed guard restores the traffic at once and fails the task with ``GateFailedError``, which is never retried.
    A retry, or a triggerer that was restarted, goes on at the step that serves. Returns a ``RolloutResult`` as a dict
    (``endpoint, revision, decision, traffic, steps, reasons``), also kept as XCom when the task fails.

    The registry is not touched: put a ``RollbackModelOperator`` with ``trigger_rule="one_failed"`` behind it.

    :param revision: name of the revision, or what ``DeployModelOperator`` returned
    :param steps: percents, rising to 100
    :param bake: seconds each step is watched
    :param max_hold: seconds a step may be held after that until there is enough traffic
    :param on_inconclusive: then ``rollback`` (restore, fail), ``skip`` (restore, skip the task) or ``continue``
    :param max_error_rate_increase: share of failed answers above that of the old revision; ``None`` turns a guard off
    :param max_latency_ratio: 95th percentile of the time to answer over that of the old revision
    :param max_prediction_shift: Kolmogorov-Smirnov distance of the predictions, 0 to 1
    :param min_requests: values that each guard needs on both sides
    :param alpha: chance to roll back a revision that is no worse, over the whole roll-out
    :param guards: guards of your own, ``package.module:function``, importable by the triggerer; the function gets a
        ``Window`` and returns a ``Reason``
    :param timeout: seconds for the whole roll-out; by default as long as its steps may take, and two minutes
    :param poll: longest pause in seconds before it looks whether the traffic is still its own
    """

    template_fields = (
        "endpoint", "revision", "steps", "bake", "max_hold", "on_inconclusive", "max_error_rate_increase",
        "max_latency_ratio", "max_prediction_shift", "min_requests", "alpha", "guards", "timeout", "target", "conn_id",
    )  # fmt: skip
    operator_extra_links = (EndpointLink(),)

    def __init__(
        self,
        *,
        endpoint: str,
        revision: str | Mapping[str, Any],
        steps: Sequence[float] = (5, 25, 50, 100),
        bake: float = 300,
        max_hold: float = 600,
        on_inconclusive: str = OnInconclusive.ROLLBACK.value,
        max_error_rate_increase: float | None = 0.02,
        max_latency_ratio: float | None = 1.5,
        max_prediction_shift: float | None = 0.2,
        min_requests: int = 50,
        alpha: float = 0.05,
        guards: Sequence[str] = (),
        timeout: float | None = None,
        poll: float = 5,
        target: str = "local",
        conn_id: str = DeploymentHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.endpoint, self.revision, self.steps, self.bake, self.max_hold = endpoint, revision, steps, bake, max_hold
        self.on_inconclusive, self.max_error_rate_increase = on_inconclusive, max_error_rate_increase
        self.max_latency_ratio, self.max_prediction_shift = max_latency_ratio, max_prediction_shift
        self.min_requests, self.alpha, self.guards = min_requests, alpha, guards
        self.timeout, self.poll, self.target, self.conn_id = timeout, poll, target, conn_id
        self._running: tuple[DeploymentTarget, RolloutPlan] | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Write down what serves and hand over to the trigger, or go on with what an earlier try began."""
        store = context["task_state_store"]
        if ended := store.get(RESULT):
            return self._finish(context, RolloutResult.from_dict(_record(ended)))
        target = DeploymentHook(self.target, self.conn_id).get_target()
        status = target.status(self.endpoint)
        EndpointLink.keep(context, status.url)
        plan = self._begun(store.get(PLAN), status) or self._plan(status)
        if plan is None:
            self.log.info("%r serves all requests of %r already.", self._name(), self.endpoint)
            return RolloutResult(self.endpoint, self._name(), Outcome.ALREADY_SERVING, status.traffic).to_dict()
        store.set(PLAN, plan.to_dict())
        self._running = target, plan
        return self._wait(plan)

    def complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Turn the trigger's result into the task's state."""
        context["task_state_store"].set(RESULT, dict(event))
        return self._finish(context, RolloutResult.from_dict(event))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Put the traffic back first when the trigger failed or ran out of time."""
        plan = context["task_state_store"].get(PLAN)
        if next_method == "__fail__" and plan:
            restore(DeploymentHook(self.target, self.conn_id).get_target(), RolloutPlan.from_dict(_record(plan)))
            self.log.warning("The roll-out was not finished. %r serves as before.", self.endpoint)
        return super().resume_execution(next_method, next_kwargs, context)

    def on_kill(self) -> None:
        """Put the traffic back."""
        if self._running is not None:
            restore(*self._running)

    def _finish(self, context: Context, result: RolloutResult) -> dict[str, Any]:
        """Read back that what serves is what the result says, then end the task accordingly."""
        store = context["task_state_store"]
        target = DeploymentHook(self.target, self.conn_id).get_target()
        result = as_it_serves(result, target.status(result.endpoint).traffic)
        left = (Outcome.PROMOTED, Outcome.INTERRUPTED)
        if result.decision not in left and (plan := store.get(PLAN)):
            restore(target, RolloutPlan.from_dict(_record(plan)))
        for key in (PLAN, RESULT):
            store.delete(key)
        if result.decision is Outcome.PROMOTED:
            return result.to_dict()
        context["ti"].xcom_push(key="return_value", value=result.to_dict())
        decision = GateDecision.of(result.reasons)
        if result.decision is Outcome.INCONCLUSIVE and self.on_inconclusive == OnInconclusive.SKIP:
            raise AirflowSkipException(f"The traffic is as it was. {decision.summary()}")
        raise GateFailedError(decision, f"Roll-out of {result.revision!r} on {result.endpoint!r}")

    def _wait(self, plan: RolloutPlan) -> NoReturn:
        """Defer. The trigger keeps its own deadline; Airflow's is for a triggerer that is gone."""
        seconds = float(self.timeout) if self.timeout else plan.longest + MARGIN
        trigger = CanaryRolloutTrigger(
            plan=plan.to_dict(),
            target=self.target,
            conn_id=self.conn_id,
            deadline=time.time() + seconds,
            poll=float(self.poll),
        )
        self.defer(trigger=trigger, method_name="complete", timeout=seconds + MARGIN)

    def _begun(self, stored: Any, status: EndpointStatus) -> RolloutPlan | None:
        """Return the plan of an earlier try if what serves now is one of its splits, with the arguments of now."""
        plan = RolloutPlan.from_dict(_record(stored)) if stored else None
        mine = plan is not None and (plan.endpoint, plan.revision) == (self.endpoint, self._name())
        if plan is None or not mine or plan.step_of(status.traffic) is None:
            return None
        now = self._plan_from(plan.prior)
        return plan if now.step_of(status.traffic) is None else now  # steps that changed meanwhile lead nowhere

    def _plan(self, status: EndpointStatus) -> RolloutPlan | None:
        """Return a new plan, or ``None`` if the revision has all traffic."""
        name = self._name()
        require_revision(status, name)
        if same_split(status.traffic, {name: 100.0}):
            return None
        _require_ready(status, name)
        return self._plan_from(status.traffic)

    def _plan_from(self, prior: Mapping[str, float]) -> RolloutPlan:
        """Return the plan that the arguments ask for."""
        for path in self.guards:
            load_guard(path)
        return RolloutPlan(
            self.endpoint,
            self._name(),
            prior,
            tuple(float(percent) for percent in self.steps),
            float(self.bake),
            float(self.max_hold),
            _choice(self.on_inconclusive),
            self._limits(),
            tuple(self.guards),
        )

    def _limits(self) -> Limits:
        return Limits(
            _optional(self.max_error_rate_increase),
            _optional(self.max_latency_ratio),
            _optional(self.max_prediction_shift),
            int(self.min_requests),
            float(self.alpha),
        )

    def _name(self) -> str:
        return self.revision if isinstance(self.revision, str) else str(self.revision["revision"])


def _require_ready(status: EndpointStatus, name: str) -> None:
    found = status.find(name)
    if found is None or found.state is not RevisionState.READY:
        state, detail = (found.state.value, found.detail) if found else ("absent", "")
        raise InvalidSpecError(
            f"Revision {name!r} of {status.endpoint!r} is {state}, not ready. {detail} Deploy it again."
        )


def _choice(word: str) -> OnInconclusive:
    try:
        return OnInconclusive(word)
    except ValueError as error:
        choices = ", ".join(OnInconclusive)
        raise InvalidSpecError(f"on_inconclusive is {word!r}; choose one of {choices}.") from error


def _optional(value: Any) -> float | None:
    """Return a limit as a number; templates render ``None`` as a word."""
    return None if value in (None, "", "None") else float(value)


def _record(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidSpecError(f"The state store holds {value!r} where a record of this roll-out belongs. Clear it.")
    return value
