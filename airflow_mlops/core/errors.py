"""Every error the platform raises on purpose, split by what the caller may do about it.

A message says what went wrong, which value caused it and what to do next. It never holds a secret: addresses are
redacted with :func:`redact` before they get here. The retry policy of the operators is built from these classes.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_mlops.core.decisions import GateDecision

_USERINFO = re.compile(r"(?P<scheme>[a-zA-Z][\w+.-]*://)[^/@\s]+@")


def redact(text: str) -> str:
    """Return *text* with user names and passwords taken out of every address in it."""
    return _USERINFO.sub(r"\g<scheme>***@", text)


def close_match(word: str, known: Iterable[str]) -> str:
    """Return a sentence part such as ``did you mean 'local'? `` or an empty string."""
    found = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {found[0]!r}? " if found else ""


class MlopsError(Exception):
    """Base of all errors raised on purpose."""


class InvalidSpecError(MlopsError, ValueError):
    """The request itself is wrong. Trying again changes nothing."""


class NotFoundError(InvalidSpecError):
    """A revision, file, model, alias, endpoint or column that was asked for does not exist."""


class UnsupportedFeatureError(InvalidSpecError):
    """A platform cannot honour a field of the request. It is refused by name and never dropped in silence."""

    def __init__(self, plugin: str, feature: str, why: str) -> None:
        super().__init__(f"{plugin!r} cannot honour {feature!r}: {why}. Remove the field or choose another platform.")
        self.plugin, self.feature, self.why = plugin, feature, why


class UnknownPluginError(InvalidSpecError):
    """No installed package offers a plugin of that name."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        super().__init__(
            f"No {kind} is called {name!r}: {close_match(name, names)}"
            f"Installed: {', '.join(names) or 'none'}. Install the package that offers it."
        )
        self.kind, self.name, self.known = kind, name, tuple(names)


class MissingExtraError(InvalidSpecError):
    """An optional dependency is not installed on this worker."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"The Python package {package!r} is not installed on this worker. Install 'airflow-mlops[{extra}]'."
        )
        self.package, self.extra = package, extra


class ResidencyError(InvalidSpecError):
    """Data would go where it may not."""

    def __init__(self, what: str, residency: str, backend: str, conn_id: str, places: Iterable[str]) -> None:
        where = ", ".join(map(repr, places)) or "nowhere that its connection tells"
        whose = f"connection {conn_id!r}" if conn_id else "no connection"
        super().__init__(
            f"Rule 'residency': {what} has to stay at {residency!r}, the backend {backend!r} ({whose}) is at {where}. "
            "Choose a backend there. If this one is there, say so in the extra 'residency' of its connection."
        )
        self.what, self.residency, self.backend, self.places = what, residency, backend, tuple(places)


class ConflictError(MlopsError):
    """Somebody else changed the same thing first. Look again before trying again."""


class IntegrityError(MlopsError):
    """Bytes are missing or differ from their recorded digest. They must not be used. Trying again changes nothing."""


class PlatformUnavailableError(MlopsError):
    """A service did not answer, throttled us or failed on its side. Trying again later is right."""


class QuotaExceededError(MlopsError):
    """The account may not use that much now. Trying again later may be right; asking for less surely is."""


class JobFailedError(MlopsError):
    """A job or deployment ran and failed through its own fault, for example an exception in the training script."""


class OutOfMemoryError(JobFailedError):
    """A job needed more memory than it was given. The same request would fail again."""


class JobTimeoutError(MlopsError):
    """A job was not over in time and was stopped. Whether another try is worth its cost is the task's own setting."""


class JobInterruptedError(MlopsError):
    """The platform broke a job that was not at fault. Trying again is right."""


class PreemptedError(MlopsError):
    """The platform took the machine away. Trying again is right, from the last checkpoint if there is one."""


class GateFailedError(MlopsError):
    """A gate said no. The decision travels with the error. Trying again on the same evidence changes nothing."""

    def __init__(self, decision: GateDecision, subject: str) -> None:
        super().__init__(f"{subject}: {decision.summary()}")
        self.decision = decision


class BudgetExceededError(GateFailedError):
    """A job would cost more than its budget. It was not submitted: the gate said no, the request itself is sound."""


NEVER_RETRY: tuple[type[MlopsError], ...] = (InvalidSpecError, IntegrityError, JobFailedError, GateFailedError)
"""Errors for which another attempt with the same input must fail again."""

RETRY: tuple[type[MlopsError], ...] = (
    PlatformUnavailableError,
    QuotaExceededError,
    JobInterruptedError,
    PreemptedError,
    ConflictError,
)
"""Errors that another attempt may cure."""
