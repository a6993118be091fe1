"""The gate before a job is submitted: what it would cost, with what its task has already spent, against a budget.

It decides and never acts. A budget is about an estimate; what ends a job that runs on and on is ``max_runtime``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from airflow_mlops.core.decisions import GateDecision, Verdict
from airflow_mlops.core.errors import BudgetExceededError, InvalidSpecError
from airflow_mlops.training.contract import TrainingResult, TrainingSpec
from airflow_mlops.training.cost import (
    Basis,
    Cost,
    CostEstimate,
    Lost,
    actual,
    amount_lost,
    amount_of,
    estimate,
    require_budget,
)
from airflow_mlops.training.driver import JobRecord
from airflow_mlops.training.prices import PriceTable, UnknownPriceError
from airflow_mlops.training.words import Word


class BudgetMode(Word):
    """What it means that a job would cost more than its budget."""

    HARD = "hard"
    """It is not submitted. Nor is one whose cost is unknown."""
    SOFT = "soft"
    """A warning."""

    @classmethod
    def called(cls) -> str:
        """Return the argument that it is given by."""
        return "budget_mode"


@dataclass(frozen=True)
class Plan:
    """What an attempt would cost, and what the budget says to that, if there is one."""

    estimate: CostEstimate
    decision: GateDecision | None = None

    def __str__(self) -> str:
        found = self.estimate
        known = f"{found.amount:.6g} {found.currency} by its {found.basis.value}." if found.amount is not None else ""
        said = f" Budget: {self.decision.summary()}" if self.decision else ""
        return f"Estimated cost: {known or f'unknown. {found.why}'}{said}"


@dataclass(frozen=True)
class Budget:
    """The prices of one task and what it may cost.

    :param limit: amount for all attempts of the task; ``None`` for no limit
    :param expected_runtime: seconds that a job is expected to run; ``None`` to reckon with its ``max_runtime``
    """

    prices: PriceTable
    limit: float | None = None
    mode: BudgetMode = BudgetMode.HARD
    expected_runtime: float | None = None

    @classmethod
    def of(cls, price_table: str | Mapping[str, Any] | None, budget: Any, mode: str, runtime: Any) -> Self | None:
        """Read an operator's arguments; ``None`` without a price table.

        :raises InvalidSpecError: an argument is wrong, or there is a budget without prices
        """
        limit, expected, found = (
            amount_of(budget, "budget"),
            amount_of(runtime, "expected_runtime"),
            BudgetMode.of(mode),
        )
        if price_table:
            return cls(PriceTable.read(price_table), limit, found, expected)
        if limit is not None:
            raise InvalidSpecError(f"There is a budget of {limit:g} and no price_table. Give one.")
        return None

    def plan(self, spec: TrainingSpec, backend: str, record: JobRecord) -> Plan:
        """Return what the attempt of *record* would cost.

        :raises BudgetExceededError: more than a hard budget leaves
        :raises InvalidSpecError: there is a hard budget, and the cost is unknown
        """
        planned = estimate(spec, backend, self.prices, expected_runtime=self.expected_runtime)
        if self.limit is None:
            return Plan(planned)
        try:
            spent = amount_lost(spec, backend, self.prices, lost(record))
        except UnknownPriceError as error:
            planned, spent = replace(planned, amount=None, basis=Basis.UNKNOWN, why=str(error)), 0.0
        decision = require_budget(planned, self.limit, spent)
        if self.mode is BudgetMode.HARD and decision.verdict is Verdict.FAIL:
            raise BudgetExceededError(decision, f"The job on {backend!r} was not submitted")
        if self.mode is BudgetMode.HARD and not decision.passed:
            raise InvalidSpecError(f"The job on {backend!r} was not submitted: {decision.summary()}")
        return Plan(planned, decision)

    def cost(self, result: TrainingResult, spec: TrainingSpec, record: JobRecord) -> Cost:
        """Return what the task has cost, when the attempt of *record* brought its result."""
        return actual(result, spec, self.prices, lost(record))


def lost(record: JobRecord) -> Lost:
    """Return what the attempts before this one were billed for nothing."""
    return Lost(record.failed_seconds, record.failed_spot_seconds)
