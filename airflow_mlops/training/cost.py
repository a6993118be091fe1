"""What a job will cost and what it has cost, from a price table and the seconds its platform bills. Pure.

An amount is never guessed: where the table or the platform does not tell, the cost is unknown and says why. Prices are
those of the machines alone; storage, traffic and taxes are not in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from airflow_mlops.core.decisions import GateDecision, Reason, Verdict
from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.core.records import Record
from airflow_mlops.training.contract import TrainingResult, TrainingSpec
from airflow_mlops.training.prices import SPOT, Price, PriceTable, UnknownPriceError

HOUR = 3600.0
PREFIX = "mlops.cost."
"""How metrics and tags about cost begin."""


class Basis(StrEnum):
    """What an amount rests on."""

    EXPECTED = "expected_runtime"
    """The seconds that the user expects."""
    LIMIT = "max_runtime"
    """The seconds after which the platform ends the job: it cannot run longer."""
    BILLED = "billed_seconds"
    """The seconds that the platform says it bills."""
    UNKNOWN = "unknown"
    """Table, spec or platform do not tell: there is no amount."""


@dataclass(frozen=True)
class CostEstimate(Record):
    """What one attempt of a job would cost.

    :param amount: in *currency*; ``None`` when it is unknown
    :param seconds: of all nodes together
    :param why: of an unknown amount, why
    """

    amount: float | None
    currency: str
    basis: Basis
    seconds: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Cost(Record):
    """What a job has cost, with all attempts of its task since it was first started or cleared.

    :param amount: in *currency*, *failed_work* included; ``None`` when it is unknown
    :param spot_savings: what the attempt with the result would have cost more on demand; ``None`` when it is unknown
    :param failed_work: of attempts that ended without a result: failed, preempted or cancelled, as far as the platform
        told what it bills for them; what they had saved in checkpoints included
    :param billed_seconds: of the attempt with the result, all nodes together
    :param why: of an unknown amount, why
    """

    amount: float | None
    currency: str
    basis: Basis
    spot_savings: float | None = None
    failed_work: float | None = None
    billed_seconds: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Lost(Record):
    """Seconds billed for attempts without a result, all nodes together.

    :param spot: the part of them on spot machines
    """

    on_demand: float = 0.0
    spot: float = 0.0


def estimate(
    spec: TrainingSpec, backend: str, prices: PriceTable, *, expected_runtime: float | None = None
) -> CostEstimate:
    """Return what a job costs that runs *expected_runtime* seconds on each node, by default its ``max_runtime``."""
    seconds = expected_runtime if expected_runtime is not None else spec.max_runtime
    if seconds is None:
        why = "Neither expected_runtime nor max_runtime is given. Give one, in seconds."
        return CostEstimate(None, prices.currency, Basis.UNKNOWN, why=why)
    basis, total = Basis.LIMIT if expected_runtime is None else Basis.EXPECTED, seconds * spec.nodes
    try:
        amount = total / HOUR * _rate(prices.hourly(spec, backend), is_spot=spec.spot, backend=backend)
    except UnknownPriceError as error:
        return CostEstimate(None, prices.currency, Basis.UNKNOWN, total, str(error))
    return CostEstimate(amount, prices.currency, basis, total)


def actual(result: TrainingResult, spec: TrainingSpec, prices: PriceTable, lost: Lost = Lost()) -> Cost:
    """Return what a job has cost.

    :param spec: of the attempt with the result
    :param lost: what was billed for the attempts before it
    """
    backend, billed = result.job.backend, result.billed_seconds
    unknown = Cost(None, prices.currency, Basis.UNKNOWN, billed_seconds=billed)
    if billed is None:
        return replace(unknown, why=f"The backend {backend!r} does not tell what it bills.")
    try:
        failed = amount_lost(spec, backend, prices, lost)
        rate = billed_rate(spec, backend, prices, is_spot=spec.spot)
    except UnknownPriceError as error:
        return replace(unknown, why=str(error))
    saved = _saved(result, spec, prices)
    return Cost(billed / HOUR * rate + failed, prices.currency, Basis.BILLED, saved, failed, billed)


def amount_lost(spec: TrainingSpec, backend: str, prices: PriceTable, lost: Lost) -> float:
    """Return what attempts without a result have cost.

    :raises UnknownPriceError: the table does not say
    """
    kinds = ((False, lost.on_demand), (True, lost.spot))
    return sum(billed_rate(spec, backend, prices, is_spot=spot) * took / HOUR for spot, took in kinds if took)


def billed_rate(spec: TrainingSpec, backend: str, prices: PriceTable, *, is_spot: bool) -> float:
    """Return the price of an hour that the platform bills. Where it bills spot by fewer seconds, it is that on demand.

    :raises UnknownPriceError: the table does not say
    """
    price = prices.hourly(spec, backend)
    return _rate(price, is_spot=is_spot and not prices.backends[backend].spot_in_seconds, backend=backend)


def require_budget(planned: CostEstimate, budget: float, spent: float = 0.0) -> GateDecision:
    """Return whether what is planned, with what was spent on attempts before it, is within the budget.

    :param budget: amount for all attempts of a task, in the currency of the price table
    """
    if planned.amount is None:
        return _gate(Verdict.INCONCLUSIVE, None, budget, f"What it costs is unknown. {planned.why}")
    total, before = planned.amount + spent, f", {_money(spent)} of it already spent" if spent else ""
    word = "over" if total > budget else "within"
    message = (
        f"By its {planned.basis.value} it costs {_money(total)} {planned.currency}{before}: {word} the budget of "
        f"{_money(budget)}."
    )
    return _gate(Verdict.FAIL if total > budget else Verdict.PASS, total, budget, message)


def figures(cost: Mapping[str, Any]) -> dict[str, float]:
    """Return the amounts of a :class:`Cost` dict that are known, as metrics of a tracking run."""
    names = ("amount", "spot_savings", "failed_work", "billed_seconds")
    return {PREFIX + name: float(cost[name]) for name in names if cost.get(name) is not None}


def cost_tags(cost: Mapping[str, Any]) -> dict[str, str]:
    """Return a :class:`Cost` dict as tags: what is known of it."""
    names = ("amount", "currency", "basis", "spot_savings", "failed_work")
    return {PREFIX + name: str(cost[name]) for name in names if cost.get(name) not in (None, "")}


def amount_of(value: Any, name: str) -> float | None:
    """Return an operator's argument as a number from 0 on; ``None`` when it was not given.

    :raises InvalidSpecError: it is something else
    """
    if value in (None, ""):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < float("inf"):
        raise InvalidSpecError(f"{name} is {value!r}. Give a number from 0 on.")
    return number


def _saved(result: TrainingResult, spec: TrainingSpec, prices: PriceTable) -> float | None:
    price, billed = prices.hourly(spec, result.job.backend), result.billed_seconds or 0.0
    if not spec.spot:
        return 0.0
    if not prices.backends[result.job.backend].spot_in_seconds:
        return billed / HOUR * (price.on_demand - (price.spot or 0.0))
    return None if result.ran_seconds is None else (result.ran_seconds - billed) / HOUR * price.on_demand


def _rate(price: Price, *, is_spot: bool, backend: str) -> float:
    if not is_spot:
        return price.on_demand
    if price.spot is None:
        raise UnknownPriceError(f"The price table has no {SPOT!r} price of what the job uses on {backend!r}. Add it.")
    return price.spot


def _gate(verdict: Verdict, observed: float | None, budget: float, message: str) -> GateDecision:
    return GateDecision.of([Reason("budget", verdict, observed, budget, message)])


def _money(amount: float) -> str:
    return f"{amount:.2f}" if amount >= 0.01 or amount == 0 else f"{amount:.3g}"
