"""What machines cost: a price table that people keep, read strictly. No price is in this package, and none is guessed.

The table is a JSON object (``docs/howto/cost.md``)::

    {"currency": "EUR",
     "backends": {
       "sagemaker": {"spot_in_seconds": true,
                     "instance_types": {"ml.m5.xlarge": {"on_demand": 0.276, "spot": 0.09}}},
       "kubernetes": {"resources": {"cpu_hour": 0.03, "memory_gib_hour": 0.004, "gpu_hour": 0.9}}}}
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from airflow_mlops.core.errors import InvalidSpecError, close_match
from airflow_mlops.training.contract import Resources, TrainingSpec

ON_DEMAND, SPOT = "on_demand", "spot"
NODE, CPU, MEMORY, GPU = "node_hour", "cpu_hour", "memory_gib_hour", "gpu_hour"
RESOURCES = (NODE, CPU, MEMORY, GPU)
"""What a table may price by the hour: a node, whatever is in it, a core, a GiB of memory, an accelerator."""

_BACKEND_KEYS = ("instance_types", "resources", "spot_in_seconds")


class UnknownPriceError(InvalidSpecError):
    """The table does not say what this costs."""


@dataclass(frozen=True)
class Price:
    """The price of one unit for an hour.

    :param spot: on machines that may be taken away; ``None`` where the table has none
    """

    on_demand: float
    spot: float | None = None

    @classmethod
    def read(cls, value: Any, what: str) -> Self:
        """Read a number, which is the price on demand, or ``{"on_demand": ..., "spot": ...}``."""
        if not isinstance(value, Mapping):
            return cls(_amount(value, what))
        _known(value, (ON_DEMAND, SPOT), what)
        if ON_DEMAND not in value:
            raise InvalidSpecError(f"The price table has no {ON_DEMAND!r} price of {what}. Give one.")
        spot = _amount(value[SPOT], f"{what} ({SPOT})") if SPOT in value else None
        return cls(_amount(value[ON_DEMAND], what), spot)


@dataclass(frozen=True)
class Machine:
    """The price of a machine that the platform has a name for.

    :param price: of the machine, with the accelerators that are in its price
    :param gpu: of each accelerator that the spec asks for, where the platform bills them apart; ``None`` where not
    """

    price: Price
    gpu: Price | None = None

    @classmethod
    def read(cls, value: Any, what: str) -> Self:
        """Read a price, which may have an entry ``gpu`` with another one."""
        if not isinstance(value, Mapping):
            return cls(Price.read(value, what))
        _known(value, (ON_DEMAND, SPOT, "gpu"), what)
        price = Price.read({key: item for key, item in value.items() if key != "gpu"}, what)
        return cls(price, Price.read(value["gpu"], f"a gpu of {what}") if "gpu" in value else None)


@dataclass(frozen=True)
class BackendPrices:
    """The prices of one platform.

    :param instance_types: machine name -> price of a whole node
    :param resources: name of :data:`RESOURCES` -> price, for specs without a machine name
    :param spot_in_seconds: the platform bills fewer seconds of a spot job, at the price on demand
    """

    instance_types: Mapping[str, Machine]
    resources: Mapping[str, Price]
    spot_in_seconds: bool = False


@dataclass(frozen=True)
class PriceTable:
    """The prices of all platforms, in one currency.

    :param currency: as people write it, for example ``EUR``
    """

    currency: str
    backends: Mapping[str, BackendPrices]

    @classmethod
    def read(cls, source: str | Mapping[str, Any]) -> Self:
        """Read a table, given as the path of a JSON file or as a mapping.

        :raises InvalidSpecError: it is no price table; with the key and the value that are wrong
        """
        found = _load(source) if isinstance(source, str) else source
        if not isinstance(found, Mapping):
            raise InvalidSpecError(f"The price table is {found!r}. Give an object with 'currency' and 'backends'.")
        _known(found, ("currency", "backends"), "the table")
        currency, backends = found.get("currency"), found.get("backends")
        if not isinstance(currency, str) or not currency.strip():
            raise InvalidSpecError(f"The currency of the price table is {currency!r}. Give its name, such as 'EUR'.")
        return cls(currency.strip(), {name: _backend(name, value) for name, value in _pairs(backends, "backends")})

    def hourly(self, spec: TrainingSpec, backend: str) -> Price:
        """Return what one node of a job costs for an hour.

        :raises UnknownPriceError: the table does not say, or the spec does not say how much of something it needs
        """
        if backend not in self.backends:
            hint = close_match(backend, self.backends)
            raise UnknownPriceError(f"The price table has no backend {backend!r}: {hint}Add it to 'backends'.")
        prices, machine = self.backends[backend], spec.resources.instance_type
        if not machine:
            return _by_resources(prices.resources, spec.resources, backend)
        if machine not in prices.instance_types:
            hint = close_match(machine, prices.instance_types)
            raise UnknownPriceError(f"The price table has no {machine!r} of {backend!r}: {hint}Add its price.")
        found = prices.instance_types[machine]
        return _sum([(found.price, 1.0), *([(found.gpu, float(spec.resources.gpus))] if found.gpu else [])])


def _by_resources(prices: Mapping[str, Price], wanted: Resources, backend: str) -> Price:
    amounts = {
        NODE: 1.0,
        CPU: wanted.cpus,
        MEMORY: None if wanted.memory_mib is None else wanted.memory_mib / 1024,
        GPU: float(wanted.gpus),
    }
    for name, amount in amounts.items():
        if name in prices and amount is None:
            raise UnknownPriceError(f"Backend {backend!r} costs by {name!r}: give 'cpus' and 'memory_mib' of a node.")
        if amount and name not in prices and name != NODE and NODE not in prices:
            raise UnknownPriceError(f"The price table has no {name!r} of {backend!r}. Add its price.")
    parts = [(prices[name], amount) for name, amount in amounts.items() if name in prices and amount]
    if not parts:
        raise UnknownPriceError(f"The price table has no resource of {backend!r} that the spec asks for. Add one.")
    return _sum(parts)


def _sum(parts: list[tuple[Price, float]]) -> Price:
    """Return the price of so much of each; on spot there is one only if each has one."""
    spots = [price.spot * amount for price, amount in parts if price.spot is not None]
    total = sum(price.on_demand * amount for price, amount in parts)
    return Price(total, sum(spots) if len(spots) == len(parts) else None)


def _backend(name: str, value: Any) -> BackendPrices:
    what = f"backend {name!r}"
    found = dict(_pairs(value, what))
    _known(found, _BACKEND_KEYS, what)
    types = _pairs(found.get("instance_types", {}), f"instance_types of {what}")
    resources = dict(_pairs(found.get("resources", {}), f"resources of {what}"))
    _known(resources, RESOURCES, f"resources of {what}")
    in_seconds = found.get("spot_in_seconds", False)
    if not isinstance(in_seconds, bool):
        raise InvalidSpecError(f"spot_in_seconds of {what} in the price table is {in_seconds!r}, not true or false.")
    return BackendPrices(
        {machine: Machine.read(price, f"{machine!r} of {what}") for machine, price in types},
        {resource: Price.read(price, f"{resource!r} of {what}") for resource, price in resources.items()},
        in_seconds,
    )


def _load(path: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidSpecError(f"The price table {path!r} cannot be read: {error.strerror}. Give its path.") from error
    except ValueError as error:
        raise InvalidSpecError(f"The price table {path!r} is not JSON: {error}.") from error


def _pairs(value: Any, what: str) -> list[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        raise InvalidSpecError(f"In the price table {what} is {value!r}, not an object.")
    return [(str(key), item) for key, item in value.items()]


def _known(value: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    names = list(known)
    for key in value:
        if key not in names:
            hint = close_match(str(key), names)
            raise InvalidSpecError(f"In the price table {what} has no {key!r}: {hint}It has {', '.join(names)}.")


def _amount(value: Any, what: str) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:
        raise InvalidSpecError(f"The price of {what} in the price table is {value!r}, not a number from 0 on.")
    return float(value)
