"""Arrays of integers and exact sums as short JSON text. It must give back every bit, on every machine."""

from __future__ import annotations

import base64
import zlib
from fractions import Fraction

import numpy as np  # noqa: TID253 - a leaf that computes; operators import it when they run

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.drift.grid import Ints


def pack(values: Ints, *, rising: bool = False) -> str:
    """Return *values* as base64 of compressed little-endian int64; *rising* ones are kept as differences."""
    kept = np.diff(values, prepend=np.int64(0)) if rising else values
    return base64.b64encode(zlib.compress(kept.astype("<i8").tobytes(), 6)).decode()


def unpack(text: str, *, rising: bool = False) -> Ints:
    """Return what :func:`pack` was given.

    :raises InvalidSpecError: the text is not from :func:`pack`
    """
    try:
        kept = np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), "<i8").astype(np.int64)
    except (ValueError, zlib.error) as error:
        raise InvalidSpecError(f"A drift profile holds a broken array: {error}. Build the profile again.") from error
    return np.cumsum(kept) if rising else kept


def pack_exact(value: Fraction) -> str:
    """Return an exact number as ``numerator/denominator``."""
    return f"{value.numerator}/{value.denominator}"
