"""Optional dependencies: each leaf says which extra it wants when an import is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow_mlops.core.errors import MissingExtraError


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Name the extra to install when an import inside the block fails.

    >>> with extra("drift"):
    ...     import json
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "unknown", name) from error
