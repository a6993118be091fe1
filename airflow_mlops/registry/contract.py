"""What every model registry promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from airflow_mlops.core.refs import ModelVersion

CHAMPION = "champion"
"""Alias of the version that serves."""

CHALLENGER = "challenger"
"""Alias of the newest version that wants to serve."""

PREVIOUS = "previous"
"""Alias of the champion before the last promotion: where a rollback goes."""


@runtime_checkable
class ModelRegistry(Protocol):
    """A catalogue of model versions with movable aliases. Every verb may be called twice."""

    def register(self, name: str, model_uri: str, *, run_id: str, tags: Mapping[str, str]) -> ModelVersion:
        """Register the model at *model_uri*, or find the version that the same run registered from it before.

        The digest of its files is recorded, so that what is loaded later can be checked against it.
        """
        ...

    def resolve(self, name: str, alias_or_version: str) -> ModelVersion:
        """Return the version a number or an alias means now.

        :raises NotFoundError: no such model, alias or version; the message lists what there is
        """
        ...

    def promote(self, name: str, *, expected: str | None, to: str) -> ModelVersion:
        """Move ``champion`` from version *expected* (``None``: there is none yet) to version *to*.

        ``previous`` is set to *expected* first. Promoting the version that is champion already changes nothing.

        :raises ConflictError: the champion is not *expected*: somebody else promoted meanwhile
        """
        ...

    def rollback(self, name: str, *, expected: str | None = None) -> ModelVersion:
        """Move ``champion`` back to ``previous`` and return the version that is champion now.

        :param expected: the version whose promotion is taken back; ``None`` for whichever is champion
        :raises ConflictError: another version is champion, and it is not ``previous``
        """
        ...

    def history(self, name: str) -> tuple[ModelVersion, ...]:
        """Return the newest versions first, at most 100."""
        ...
