"""Loads one MLflow model and scores tables with it: the only place of the gateway that imports MLflow.

It runs in a worker process. Loading a model runs code of the model's maker, with the rights of whoever started the
gateway: only models of a registry you trust belong here.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.core.extras import extra
from airflow_mlops.serving.schema import Field, Schema, Table

_DTYPES = {"double": "float64", "float": "float32", "long": "int64", "integer": "int32", "boolean": "bool"}


@dataclass(frozen=True)
class Scorer:
    """A loaded model.

    :param schema: its input columns
    :param predict: takes a data frame, or an array when the model was trained on one
    :param takes_array: which of the two
    """

    schema: Schema
    predict: Callable[[Any], Any]
    takes_array: bool

    def score(self, table: Table) -> list[Any]:
        """Return one JSON value a row, as a rule.

        :raises InvalidSpecError: a value cannot be turned into its column's type
        """
        types = {field.name: field.type for field in self.schema.fields}
        frame = _frame(table, [types.get(name, "any") for name in table.names])
        found = _plain(self.predict(frame.to_numpy() if self.takes_array else frame))
        return found if isinstance(found, list) else [found]


def load_scorer(path: Path) -> Scorer:
    """Load the MLflow model in *path*.

    :raises InvalidSpecError: its signature is not a table, or it has no pyfunc flavour
    :raises MissingExtraError: MLflow is not installed
    """
    with extra("serve"):
        import mlflow.pyfunc
    model = mlflow.pyfunc.load_model(str(path))
    raw = _raw(model)
    signature = model.metadata.get_input_schema()
    schema = Schema(_declared(signature) if signature is not None else _learned(raw))
    if _is_binary_classifier(raw):
        return Scorer(schema, lambda data: raw.predict_proba(data)[:, 1], not hasattr(raw, "feature_names_in_"))
    return Scorer(schema, model.predict, signature is not None and signature.is_tensor_spec())


def _raw(model: Any) -> Any:
    try:
        return model.get_raw_model()
    except NotImplementedError:
        return None


def _is_binary_classifier(raw: Any) -> bool:
    """Whether *raw* has scikit-learn's interface of a classifier with two classes (several outputs give a list)."""
    classes = getattr(raw, "classes_", None)
    return hasattr(raw, "predict_proba") and getattr(classes, "shape", None) == (2,)


def _declared(signature: Any) -> tuple[Field, ...]:
    if not signature.is_tensor_spec():
        return tuple(
            Field(str(column.name if column.name is not None else index), _type_word(column.type), column.required)
            for index, column in enumerate(signature.inputs)
        )
    shape = tuple(signature.inputs[0].shape)
    if len(signature.inputs) != 1 or len(shape) != 2 or shape[1] < 1:
        raise InvalidSpecError(f"The model's signature is no table: {signature!r}. Give it columns or shape (-1, k).")
    word = {"f": "double", "i": "long", "b": "boolean"}.get(signature.inputs[0].type.kind, "any")
    return tuple(Field(str(index), word) for index in range(shape[1]))


def _type_word(kind: Any) -> str:
    return str(getattr(kind, "name", "any"))


def _learned(raw: Any) -> tuple[Field, ...]:
    """Return what a scikit-learn model without a signature remembers of its training data."""
    names = getattr(raw, "feature_names_in_", None)
    if names is None:
        names = range(getattr(raw, "n_features_in_", 0))
    return tuple(Field(str(name)) for name in names)


def _frame(table: Table, types: list[str]) -> Any:
    """Return a pandas data frame. All doubles at once is three times as fast as column by column."""
    with extra("serve"):
        import numpy as np
        import pandas as pd
    if types and set(types) == {"double"}:
        with contextlib.suppress(OverflowError):  # the way by columns finds the one with the large number
            return pd.DataFrame(np.array(table.columns, dtype="float64").T, columns=list(table.names))
    series = [_series(*column) for column in zip(table.names, table.columns, types, strict=True)]
    return pd.DataFrame(dict(zip(table.names, series, strict=True)))


def _series(name: str, values: list[Any], kind: str) -> Any:
    import pandas as pd

    try:
        if kind == "datetime":
            return pd.to_datetime(pd.Series(values))
        missing = None in values and kind not in ("double", "float")
        return pd.Series(values, dtype=None if missing else _DTYPES.get(kind))
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidSpecError(f"Column {name!r} does not hold {kind} values: {type(error).__name__}.") from error


def _plain(value: Any) -> Any:
    """Return *value* as JSON has it: arrays as lists, frames as records, numbers that are not finite as ``None``."""
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return _plain(value.to_dict(orient="records"))
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
