"""The labelled rows that both models are scored on. Labels never reach a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_mlops.core.digests import file_digest, folder_digest
from airflow_mlops.core.errors import IntegrityError, InvalidSpecError, NotFoundError, close_match
from airflow_mlops.core.extras import extra


@dataclass(frozen=True)
class Holdout:
    """Rows to score.

    :param features: data frame of the columns the models see
    :param labels: one number a row
    :param digest: of the file or folder the rows were read from
    """

    features: Any
    labels: Any
    digest: str


def read_holdout(
    path: Path, target: str, *, features: Sequence[str] = (), positive_label: Any = None, digest: str = ""
) -> Holdout:
    """Read a parquet or CSV file, or a folder of parquet files.

    :param target: column of the true answers
    :param features: columns the models see; all but *target* by default
    :param positive_label: the value of *target* that counts as 1; ``None`` leaves numbers and booleans as they are
    :param digest: what the rows must have; taken from the files when empty
    :raises IntegrityError: the file has another digest
    :raises NotFoundError: there is no such file or column
    """
    found = data_digest(path)
    if _comparable(digest, found) and digest != found:
        raise IntegrityError(f"The holdout at {path} has digest {found}, not {digest}. It is not used.")
    frame = _read(path)
    columns = list(features) or [name for name in frame.columns if name != target]
    for name in (target, *columns):
        if name not in frame.columns:
            raise NotFoundError(f"The holdout at {path} has no column {name!r}: {close_match(name, frame.columns)}")
    if target in columns:
        raise InvalidSpecError(f"The target {target!r} is among the features: the models would be shown the answer.")
    labels = frame[target] if positive_label is None else frame[target] == positive_label
    return Holdout(frame[columns], labels.to_numpy(), digest or found)


def data_digest(path: Path) -> str:
    """Return ``md5:<hex>`` of a file, which is what DVC names it by, or ``sha256:<hex>`` of a folder."""
    if not path.exists():
        raise NotFoundError(f"There is no holdout at {path}. Materialise it before the evaluation.")
    return folder_digest(path) if path.is_dir() else file_digest(path, "md5")


def _comparable(given: str, found: str) -> bool:
    """Whether both digests are of the same kind: DVC's digest of a folder is not computed here."""
    kind, _, _ = found.partition(":")
    return given.startswith(f"{kind}:") and not given.endswith(".dir")


def _read(path: Path) -> Any:
    with extra("mlflow"):
        import pandas as pd
        import pyarrow  # noqa: F401 - what pandas reads parquet with
    if path.suffix == ".csv":
        return pd.read_csv(path)
    return pd.read_parquet(path)
