"""Between arrow and numpy without a copy, and without pandas.

``to_numpy``, ``pa.array`` and ``pa.scalar`` import pandas to look for its types: half a CPU second,
which profiles a million rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np  # noqa: TID253 - a leaf that computes; operators import it when they run
import numpy.typing as npt  # noqa: TID253
import pyarrow as pa  # noqa: TID253

_NUMPY_NAMES = {"double": "float64", "float": "float32", "halffloat": "float16"}


def to_numpy(array: Any) -> npt.NDArray[Any]:
    """Return the values of an array or chunked array of plain numbers that holds no nulls."""
    name = str(array.type)
    dtype = np.dtype(_NUMPY_NAMES.get(name, name))
    chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
    parts = [np.frombuffer(c.buffers()[1], dtype, len(c), c.offset * dtype.itemsize) for c in chunks if len(c)]
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype), *parts])


def from_integers(values: npt.NDArray[np.int64]) -> Any:
    """Return *values* as an arrow array over the same memory."""
    return pa.Array.from_buffers(pa.int64(), values.size, [None, pa.py_buffer(np.ascontiguousarray(values))])


def integer(value: int) -> Any:
    """Return *value* as an arrow scalar, to compare columns with."""
    return from_integers(np.array([value], np.int64))[0]
