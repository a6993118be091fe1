"""MLflow's model registry behind our contract: idempotent registration, compare-and-set promotion, checked downloads.

A version is never deleted here, since MLflow would drop its aliases with it and leave an endpoint without a model.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_mlops.core.digests import folder_digest
from airflow_mlops.core.errors import ConflictError, IntegrityError, InvalidSpecError, NotFoundError, close_match
from airflow_mlops.core.refs import ModelVersion
from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.registry.contract import CHAMPION, PREVIOUS
from airflow_mlops.registry.lock import PREFIX, alias_lock
from airflow_mlops.registry.promotion import move_champion, restore_previous
from airflow_mlops.registry.sources import ModelSource, files_of, find_source

DIGEST = "mlops.digest"
MODEL_URI = "mlops.model_uri"
ROLLED_BACK_TO = "mlops.rolled_back_to"


class MLflowRegistry:
    """The registry of the server that *client* talks to."""

    def __init__(self, client: MLflowClient) -> None:
        self.client = client

    def register(self, name: str, model_uri: str, *, run_id: str, tags: Mapping[str, str]) -> ModelVersion:
        """Register the model at *model_uri*, or find the version the same run registered from it before.

        Its files are read once for the digest, which is kept as the tag ``mlops.digest``.

        :raises NotFoundError: the run or the model does not exist
        :raises InvalidSpecError: *model_uri* has a form that cannot be registered
        """
        found = find_source(self.client, model_uri, run_id)
        self._ensure_model(name)
        version = self._registered(name, found) or self._create_once(name, found, tags)
        return self.resolve(name, version)

    def _create_once(self, name: str, found: ModelSource, tags: Mapping[str, str]) -> str:
        own = {DIGEST: self.client.artifacts.digest(found.files), MODEL_URI: found.source}
        with alias_lock(self.client, name, "register"):
            if version := self._registered(name, found):
                return version
            created = self.client.create_version(
                name, found.source, run_id=found.run_id, model_id=found.model_id, tags={**tags, **own}
            )
            return str(created["version"])

    def resolve(self, name: str, alias_or_version: str) -> ModelVersion:
        """Return the version a number or an alias means now.

        :raises NotFoundError: no such model, alias or version; the message lists what there is
        """
        model = self._model(name)
        wanted = str(alias_or_version)
        version = wanted if wanted.isdigit() else _aliases(model).get(wanted)
        if version is None:
            known = sorted(_aliases(model))
            raise NotFoundError(
                f"Model {name!r} has no alias {wanted!r}: {close_match(wanted, known)}"
                f"It has {', '.join(known) or 'none yet'}."
            )
        return _version(self.client.version(name, version), model)

    def promote(self, name: str, *, expected: str | None, to: str) -> ModelVersion:
        """Move ``champion`` from version *expected* (``None``: there is none yet) to version *to*.

        :raises ConflictError: the champion is not *expected*: somebody else promoted meanwhile
        """
        move_champion(self.client, name, expected=expected, to=to)
        return self.resolve(name, to)

    def rollback(self, name: str, *, expected: str | None = None) -> ModelVersion:
        """Move ``champion`` back to ``previous`` and return the version that is champion now.

        :param expected: the version whose promotion is taken back; ``None`` for whichever is champion
        :raises ConflictError: another version is champion, and it is not ``previous``
        """
        left, now = restore_previous(self.client, name, expected=expected)
        if left and left != now:
            self.set_version_tags(name, left, {ROLLED_BACK_TO: now})
        return self.resolve(name, now)

    def history(self, name: str) -> tuple[ModelVersion, ...]:
        """Return the newest versions first, at most 100."""
        model = self._model(name)
        return tuple(_version(found, model) for found in self.client.versions(f"name = {_quoted(name)}"))

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias other than ``champion`` and ``previous`` to *version*; those two move by promotion alone."""
        if alias in (CHAMPION, PREVIOUS):
            raise InvalidSpecError(f"The alias {alias!r} moves by promote and rollback alone. Choose another one.")
        self.client.set_alias(name, alias, version)

    def set_version_tags(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Keep what became known about a version, for example its last drift verdict."""
        for key, value in tags.items():
            self.client.set_version_tag(name, version, key, value)

    def fetch(self, model: ModelVersion, to: Path) -> Path:
        """Put the model's files at the folder *to*, complete and checked against its digest, or not at all.

        The same files already there are kept.

        :raises IntegrityError: the files, there or at the server, differ from the digest recorded at registration
        """
        if not model.digest:
            raise IntegrityError(f"Version {model.version} of {model.name!r} has no digest. Register it again.")
        if to.exists():
            _require(folder_digest(to), model, f"the files at {to}")
            return to
        to.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.name}-") as scratch:
            folder = Path(scratch) / "model"
            folder.mkdir()
            self.client.artifacts.download(files_of(self.client, model.name, model.version), folder)
            _require(folder_digest(folder), model, f"the files at MLflow ({self.client.address})")
            _appear(folder, to)
        return to

    def attach(self, model: ModelVersion, path: str, content: bytes) -> str:
        """Keep a small file with the run of *model* and return its address."""
        if not model.run_id:
            raise NotFoundError(f"Version {model.version} of {model.name!r} has no run to keep {path!r} with.")
        uri = f"{self.client.run(model.run_id)['info']['artifact_uri']}/{path}"
        self.client.artifacts.write(uri, content)
        return uri

    def read(self, uri: str) -> bytes:
        """Return a file that :meth:`attach` kept."""
        return self.client.artifacts.read(uri)

    def _ensure_model(self, name: str) -> None:
        try:
            self.client.model(name)
        except NotFoundError:
            try:
                self.client.create_model(name)
            except ConflictError:
                self.client.model(name)

    def _registered(self, name: str, found: ModelSource) -> str | None:
        query = f"name = {_quoted(name)} AND tags.`{MODEL_URI}` = {_quoted(found.source)}"
        same = [v for v in self.client.versions(query, limit=10) if v.get("run_id", "") == found.run_id]
        return str(same[-1]["version"]) if same else None

    def _model(self, name: str) -> dict[str, Any]:
        try:
            return self.client.model(name)
        except NotFoundError as error:
            known = [found["name"] for found in self.client.models() if not found["name"].startswith(PREFIX)]
            raise NotFoundError(
                f"MLflow at {self.client.address} has no model {name!r}: {close_match(name, known)}"
                f"It has {', '.join(known[:20]) or 'none yet'}."
            ) from error


def _aliases(model: Mapping[str, Any]) -> dict[str, str]:
    return {entry["alias"]: str(entry["version"]) for entry in model.get("aliases", ())}


def _version(found: Mapping[str, Any], model: Mapping[str, Any]) -> ModelVersion:
    number = str(found["version"])
    tags = {tag["key"]: tag["value"] for tag in found.get("tags", ())}
    return ModelVersion(
        name=found["name"],
        version=number,
        uri=found["source"],
        run_id=found.get("run_id", ""),
        digest=tags.get(DIGEST, ""),
        aliases=tuple(sorted(alias for alias, version in _aliases(model).items() if version == number)),
        tags=tags,
    )


def _quoted(text: str) -> str:
    """Return *text* as a string of MLflow's filter language, which knows no escapes."""
    return f'"{text}"' if "'" in text else f"'{text}'"


def _require(found: str, model: ModelVersion, what: str) -> None:
    if found != model.digest:
        raise IntegrityError(
            f"Version {model.version} of {model.name!r} was registered with {model.digest}, but {what} have {found}. "
            "They are not used. Register the model again if the change was intended."
        )


def _appear(folder: Path, to: Path) -> None:
    """Rename *folder* to *to*; if somebody put the same files there meanwhile, theirs stay."""
    try:
        os.replace(folder, to)
    except OSError:
        if not to.is_dir() or folder_digest(to) != folder_digest(folder):
            raise
        shutil.rmtree(folder)
