"""The gateway's own copy of the model files: checked against the digest before every load."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from airflow_mlops.core.digests import folder_digest
from airflow_mlops.core.errors import IntegrityError, NotFoundError

MODEL_FILE = "MLmodel"


def require_model(source: Path) -> None:
    """Check that *source* looks like an MLflow model.

    :raises NotFoundError: there is no such folder, or no ``MLmodel`` file in it
    """
    if not source.is_absolute() or not (source / MODEL_FILE).is_file():
        raise NotFoundError(
            f"{str(source)!r} is no MLflow model. Give the absolute path of a folder with {MODEL_FILE!r}."
        )


def keep_model(source: Path, home: Path, digest: str) -> None:
    """Make *home* a copy of *source* whose digest is *digest*; an intact copy is left alone.

    The digest is taken of the copy, so nothing that happens to *source* later, or meanwhile, can be served.

    :raises NotFoundError: a copy is needed and the source is gone
    :raises IntegrityError: the files have another digest
    """
    if home.is_dir():
        if folder_digest(home) == digest:
            return
        shutil.rmtree(home)
    require_model(source)
    draft = home.with_name(f".{home.name}")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        shutil.copytree(source, draft, symlinks=True)
        found = folder_digest(draft)
        if found != digest:
            raise IntegrityError(
                f"The files have digest {found!r}, {digest!r} was asked for. Register the model again."
            )
        draft.replace(home)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def drop_models(models: Path, wanted: Iterable[Path]) -> None:
    """Delete every copy below *models* (``<endpoint>/<folder>``) that is not *wanted*."""
    keep = set(wanted)
    for home in models.glob("*/*"):
        if home not in keep:
            shutil.rmtree(home)
