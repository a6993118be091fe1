"""Loads a model from files that were checked against their digest, and scores a holdout with it.

Loading a pickle runs whatever its author put into it, and MLflow's skops models bring their own list of types to
trust, which a crafted model could extend. So scikit-learn models are loaded here from skops alone and with our own
list; anything that would unpickle is refused unless the task says ``allow_pickle``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.core.extras import extra

TRUSTED_TYPES = (
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)
"""Types that skops does not trust by itself and scikit-learn's trees need. Their state is arrays and numbers."""

SAFE_LOADERS = ("mlflow.onnx", "mlflow.xgboost", "mlflow.lightgbm", "mlflow.catboost")
"""MLflow flavours whose files are data and not pickles."""


def score(folder: Path, features: Any, *, allow_pickle: bool = False) -> Any:
    """Return one number a row: the probability of the positive class if the model gives one, else its prediction.

    The positive class is the second of two.

    :param folder: an MLflow model, as :meth:`MLflowRegistry.fetch` left it
    :param features: data frame with the columns the model was trained on
    :raises InvalidSpecError: the model would unpickle, lacks a column or gives more than two columns
    """
    predict = load_predict(folder, allow_pickle=allow_pickle)
    try:
        found = predict(features)
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidSpecError(f"The model cannot score the holdout: {str(error)[:500]}") from error
    return _one_column(found)


def load_predict(folder: Path, *, allow_pickle: bool = False) -> Callable[[Any], Any]:
    """Return the function that scores a data frame.

    :raises InvalidSpecError: the model's files would be unpickled and *allow_pickle* is false
    """
    flavors = _flavors(folder)
    if not allow_pickle:
        sklearn = flavors.get("sklearn", {})
        if sklearn.get("serialization_format") == "skops" and not sklearn.get("code"):
            return _probabilities(_load_skops(folder / sklearn["pickled_model"]))
    loader = flavors.get("python_function", {}).get("loader_module", "")
    if not allow_pickle and (loader not in SAFE_LOADERS or flavors["python_function"].get("code")):
        raise InvalidSpecError(
            f"The model would be loaded by {loader or 'nothing we know'!r}, which runs code from its files. Log it "
            "with serialization_format='skops' (scikit-learn) or as ONNX or XGBoost, or set allow_pickle=True."
        )
    with extra("mlflow"):
        import mlflow.pyfunc
    model = mlflow.pyfunc.load_model(str(folder))
    return _probabilities(_raw(model, loader))


def _flavors(folder: Path) -> Mapping[str, Any]:
    with extra("mlflow"):
        import yaml
    description = folder / "MLmodel"
    if not description.is_file():
        raise InvalidSpecError(f"{folder} holds no file 'MLmodel', so it is not an MLflow model.")
    flavors = (yaml.safe_load(description.read_text()) or {}).get("flavors")
    return flavors if isinstance(flavors, Mapping) else {}


def _load_skops(file: Path) -> Any:
    with extra("mlflow"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import asks every loaded module for names, deprecated ones included
        import skops.io
    wanted = sorted(set(skops.io.get_untrusted_types(file=file)) - set(TRUSTED_TYPES))
    if wanted:
        raise InvalidSpecError(
            f"The model holds types that are not on the list of reviewed ones: {', '.join(wanted)}. "
            "Use scikit-learn's own estimators, or set allow_pickle=True if you trust the training code."
        )
    return skops.io.load(file, trusted=list(TRUSTED_TYPES))


def _raw(model: Any, loader: str) -> Any:
    return model.get_raw_model() if loader == "mlflow.sklearn" else model


def _probabilities(model: Any) -> Callable[[Any], Any]:
    return model.predict_proba if hasattr(model, "predict_proba") else model.predict  # type: ignore[no-any-return]


def _one_column(found: Any) -> Any:
    with extra("mlflow"):
        import numpy as np
    columns = np.asarray(found, dtype=np.float64)
    if columns.ndim == 2 and columns.shape[1] == 2:
        return columns[:, 1]
    if columns.ndim == 2 and columns.shape[1] == 1:
        return columns[:, 0]
    if columns.ndim != 1:
        raise InvalidSpecError(
            f"The model gives {columns.shape[1:]} numbers a row. Two classes or one number are scored."
        )
    return columns
