"""What jobs cost: price tables, estimates, actual costs and budgets, without a platform."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.decisions import Verdict
from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.training.contract import JobHandle, Resources, TrainingResult, TrainingSpec
from airflow_mlops.training.cost import (
    Basis,
    Cost,
    Lost,
    actual,
    cost_tags,
    estimate,
    figures,
    require_budget,
)
from airflow_mlops.training.prices import PriceTable, UnknownPriceError

TABLE: dict[str, Any] = {
    "currency": "EUR",
    "backends": {
        "sagemaker": {
            "spot_in_seconds": True,
            "instance_types": {"ml.m5.xlarge": {"on_demand": 2.0, "spot": 0.5}},
        },
        "vertex": {"instance_types": {"n1-standard-4": {"on_demand": 2.0, "spot": 0.5}, "only-on-demand": 3}},
        "kubernetes": {
            "resources": {
                "cpu_hour": {"on_demand": 1.0, "spot": 0.25},
                "memory_gib_hour": {"on_demand": 0.5, "spot": 0.125},
                "gpu_hour": {"on_demand": 8.0, "spot": 2.0},
            }
        },
        "local": {"resources": {"node_hour": 0.1}},
        "kubeflow": {"resources": {"cpu_hour": 1.0}},
    },
}
PRICES = PriceTable.read(TABLE)
MACHINE = {"sagemaker": "ml.m5.xlarge", "vertex": "n1-standard-4"}
seconds = st.just(0.0) | st.floats(1e-3, 1e6)


def spec(machine: str = "", **fields: Any) -> TrainingSpec:
    """Return a spec that needs a machine."""
    resources = {key: fields.pop(key) for key in ("cpus", "memory_mib", "gpus") if key in fields}
    return TrainingSpec(("true",), resources=Resources(instance_type=machine, **resources), **fields)


def result(backend: str, **fields: Any) -> TrainingResult:
    """Return the result of a job."""
    return TrainingResult(JobHandle(backend, "job"), **fields)


def test_a_price_is_that_of_the_machine_or_of_what_the_spec_asks_for() -> None:
    """A machine name has one price; otherwise cores, memory and accelerators add up, in spot and on demand."""
    assert PRICES.hourly(spec("n1-standard-4"), "vertex").on_demand == 2.0
    asked = PRICES.hourly(spec(cpus=2, memory_mib=4096, gpus=1), "kubernetes")
    assert (asked.on_demand, asked.spot) == (2 * 1.0 + 4 * 0.5 + 8.0, 2 * 0.25 + 4 * 0.125 + 2.0)
    assert PRICES.hourly(spec(cpus=64, gpus=8), "local").on_demand == 0.1


def test_accelerators_that_are_billed_apart_are_added() -> None:
    """The price of a machine holds as it is; with a ``gpu`` price each accelerator that is asked for is added."""
    machines = {
        "n1": {"on_demand": 1, "spot": 0.25, "gpu": {"on_demand": 4, "spot": 1}},
        "a2": 9,
        "n2": {"on_demand": 1},
    }
    table = PriceTable.read({"currency": "USD", "backends": {"vertex": {"instance_types": machines}}})
    priced = [table.hourly(spec(name, gpus=2), "vertex") for name in ("n1", "a2", "n2")]
    assert [(price.on_demand, price.spot) for price in priced] == [(9.0, 2.25), (9.0, None), (1.0, None)]


UNKNOWN = [
    (spec("n1-standard-5"), "vertex", "did you mean 'n1-standard-4'"),
    (spec(), "azureml", "no backend 'azureml'"),
    (spec(), "vertex", "no resource of 'vertex'"),
    (spec(cpus=1), "kubernetes", "'memory_gib_hour'"),
    (spec(memory_mib=1), "kubernetes", "'cpu_hour'"),
    (spec(cpus=1, gpus=1), "kubeflow", "no 'gpu_hour' of 'kubeflow'"),
    (spec(cpus=1, memory_mib=1024), "kubeflow", "no 'memory_gib_hour' of 'kubeflow'"),
]


@pytest.mark.parametrize(("asked", "backend", "why"), UNKNOWN)
def test_what_the_table_does_not_say_is_unknown(asked: TrainingSpec, backend: str, why: str) -> None:
    """No other price is taken instead: the estimate and the cost are unknown and say what is missing."""
    with pytest.raises(UnknownPriceError, match=why):
        PRICES.hourly(asked, backend)
    planned = estimate(replace(asked, max_runtime=10.0), backend, PRICES)
    found = actual(result(backend, billed_seconds=10.0), asked, PRICES)
    assert (planned.amount, planned.basis, found.amount, found.basis) == (None, Basis.UNKNOWN, None, Basis.UNKNOWN)
    assert why in planned.why
    assert why in found.why


def test_a_machine_without_a_spot_price_is_unknown_on_spot() -> None:
    """Nor is the price on demand taken for it."""
    asked = spec("only-on-demand", max_runtime=3600.0)
    assert estimate(asked, "vertex", PRICES).amount == 3.0
    assert "no 'spot' price" in estimate(replace(asked, spot=True), "vertex", PRICES).why


@given(expected=st.none() | seconds, limit=st.none() | seconds, nodes=st.integers(1, 64), spot=st.booleans())
def test_an_estimate_is_time_times_nodes_times_price(
    expected: float | None, limit: float | None, nodes: int, spot: bool
) -> None:
    """What is expected counts before the limit, and without either the amount is unknown."""
    asked = spec("n1-standard-4", max_runtime=limit, nodes=nodes, spot=spot)
    found = estimate(asked, "vertex", PRICES, expected_runtime=expected)
    took = expected if expected is not None else limit
    if took is None:
        assert (found.amount, found.basis) == (None, Basis.UNKNOWN)
        return
    assert found.amount == pytest.approx(took * nodes / 3600 * (0.5 if spot else 2.0))
    assert found.basis is (Basis.EXPECTED if expected is not None else Basis.LIMIT)


@given(billed=seconds, lost=st.builds(Lost, seconds, seconds), spot=st.booleans())
def test_spot_at_a_lower_price(billed: float, lost: Lost, spot: bool) -> None:
    """Amount and savings together are what the good attempt would have cost on demand, and failed work is on top."""
    found = actual(result("vertex", billed_seconds=billed), spec("n1-standard-4", spot=spot), PRICES, lost)
    assert found.amount is not None
    assert found.spot_savings is not None
    assert found.failed_work == pytest.approx((lost.on_demand * 2.0 + lost.spot * 0.5) / 3600)
    good = found.amount - (found.failed_work or 0.0)
    assert good + found.spot_savings == pytest.approx(billed / 3600 * 2.0, abs=1e-6)
    assert found.spot_savings >= 0
    assert (found.spot_savings == 0) == (not spot or billed == 0)


@given(billed=seconds, saved=seconds, lost=seconds)
def test_spot_in_fewer_seconds(billed: float, saved: float, lost: float) -> None:
    """Where the platform bills fewer seconds, they cost the price on demand, and savings are the seconds not billed."""
    asked = spec("ml.m5.xlarge", spot=True)
    done = result("sagemaker", billed_seconds=billed, ran_seconds=billed + saved)
    found = actual(done, asked, PRICES, Lost(spot=lost))
    assert found.amount == pytest.approx((billed + lost) / 3600 * 2.0)
    assert found.spot_savings == pytest.approx(saved / 3600 * 2.0, abs=1e-6)
    assert actual(replace(done, ran_seconds=None), asked, PRICES).spot_savings is None


def test_a_backend_that_does_not_tell_has_no_amount() -> None:
    """Nothing is made up from the time on our own clock."""
    found = actual(result("vertex"), spec("n1-standard-4"), PRICES)
    assert (found.amount, found.basis, found.spot_savings) == (None, Basis.UNKNOWN, None)
    assert "does not tell" in found.why


@given(planned=st.floats(0, 1e6), budget=st.floats(0, 1e6), spent=st.floats(0, 1e6))
def test_a_budget_passes_exactly_what_is_within(planned: float, budget: float, spent: float) -> None:
    """What is spent counts; the reason has both amounts."""
    found = replace(estimate(spec("n1-standard-4", max_runtime=1.0), "vertex", PRICES), amount=planned)
    decision = require_budget(found, budget, spent)
    assert decision.passed == (planned + spent <= budget)
    (reason,) = decision.reasons
    assert (reason.rule, reason.observed, reason.required) == ("budget", planned + spent, budget)


def test_an_unknown_cost_is_inconclusive() -> None:
    """It is neither within nor over."""
    decision = require_budget(estimate(spec("n1-standard-4"), "vertex", PRICES), 1.0)
    assert decision.verdict is Verdict.INCONCLUSIVE


WRONG: list[tuple[Any, str]] = [
    ([], "Give an object"),
    ({"backends": {}}, "currency of the price table is None"),
    ({"currency": " ", "backends": {}}, "currency"),
    ({"currency": "EUR"}, "backends is None"),
    ({"currency": "EUR", "backends": {"local": 1}}, "backend 'local' is 1"),
    ({"currency": "EUR", "backends": {"local": {"resource": {}}}}, "did you mean 'resources'"),
    ({"currency": "EUR", "backends": {"local": {"resources": {"cpu_hours": 1}}}}, "did you mean 'cpu_hour'"),
    ({"currency": "EUR", "backends": {"local": {"resources": {"cpu_hour": "1"}}}}, "is '1', not a number"),
    ({"currency": "EUR", "backends": {"local": {"resources": {"cpu_hour": -1}}}}, "is -1, not a number"),
    ({"currency": "EUR", "backends": {"local": {"resources": {"cpu_hour": True}}}}, "is True, not a number"),
    ({"currency": "EUR", "backends": {"x": {"instance_types": {"a": {"spot": 1}}}}}, "no 'on_demand' price of 'a'"),
    ({"currency": "EUR", "backends": {"x": {"instance_types": {"a": {"on_demand": 1, "sopt": 1}}}}}, "'spot'"),
    ({"currency": "EUR", "backends": {"x": {"instance_types": {"a": {"on_demand": 1, "spot": None}}}}}, "None"),
    ({"currency": "EUR", "backends": {"x": {"spot_in_seconds": "yes"}}}, "'yes', not true or false"),
]


@pytest.mark.parametrize(("table", "message"), WRONG)
def test_a_table_with_a_mistake_is_refused(table: Any, message: str) -> None:
    """A slip costs money: key and value are named, and nothing is left out in silence."""
    with pytest.raises(InvalidSpecError, match=message):
        PriceTable.read(table)


@pytest.mark.parametrize(("text", "message"), [("{", "not JSON"), ("NaN", "Give an object"), (None, "No such file")])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    """The message has the file's path."""
    path = tmp_path / "prices.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidSpecError, match=message):
        PriceTable.read(str(path))


def test_a_file_is_read_as_the_mapping_it_holds(tmp_path: Path) -> None:
    """Both ways give the same prices."""
    (tmp_path / "prices.json").write_text(json.dumps(TABLE))
    assert PriceTable.read(str(tmp_path / "prices.json")) == PRICES


def test_only_what_is_known_becomes_metrics_and_tags() -> None:
    """An unknown amount is no metric and no tag; nothing is written as 'None'."""
    known = Cost(3.5, "EUR", Basis.BILLED, 0.5, 0.0, 7.0).to_dict()
    assert figures(known) == {
        "mlops.cost.amount": 3.5,
        "mlops.cost.spot_savings": 0.5,
        "mlops.cost.failed_work": 0.0,
        "mlops.cost.billed_seconds": 7.0,
    }
    assert cost_tags(known)["mlops.cost.currency"] == "EUR"
    unknown = Cost(None, "EUR", Basis.UNKNOWN, why="because").to_dict()
    assert figures(unknown) == {}
    assert cost_tags(unknown) == {"mlops.cost.currency": "EUR", "mlops.cost.basis": "unknown"}
    assert cost_tags({}) == {}
    assert Cost.from_dict(known) == Cost(3.5, "EUR", Basis.BILLED, 0.5, 0.0, 7.0)
