"""What a gate says, and why. Pure values: a decision never acts.

INCONCLUSIVE is an outcome of its own: there was not enough evidence. It never promotes and never fails a run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from airflow_mlops.core.records import Record


class Verdict(StrEnum):
    """Outcome of a gate."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Reason(Record):
    """One rule a gate looked at.

    :param rule: short name of the rule, for example ``superiority``
    :param verdict: what this rule alone says
    :param observed: what was measured
    :param required: what the rule asks for
    :param message: one sentence for a person
    """

    rule: str
    verdict: Verdict
    observed: Any
    required: Any
    message: str


@dataclass(frozen=True)
class GateDecision(Record):
    """The verdict of a gate with the reasons it rests on, in the order the rules were looked at."""

    verdict: Verdict
    reasons: tuple[Reason, ...] = ()

    @classmethod
    def of(cls, reasons: Iterable[Reason]) -> Self:
        """Join rules: one FAIL fails, else one INCONCLUSIVE leaves it open, else it passes. No rule is INCONCLUSIVE."""
        found = tuple(reasons)
        verdicts = {reason.verdict for reason in found}
        for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS):
            if verdict in verdicts:
                return cls(verdict, found)
        return cls(Verdict.INCONCLUSIVE, found)

    @property
    def passed(self) -> bool:
        """Whether the verdict is PASS."""
        return self.verdict is Verdict.PASS

    def summary(self) -> str:
        """Return ``FAIL: <messages>`` with the rules that made the verdict: those that failed, were open, or all."""
        telling = [reason.message for reason in self.reasons if reason.verdict is self.verdict]
        return f"{self.verdict.name}: {' '.join(telling) or 'no rule was given.'}"
