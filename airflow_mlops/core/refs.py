"""References to things that live elsewhere and never change: data versions and model versions.

A reference is proof: it names the bytes by digest, so that whoever holds it can check what they got.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from airflow_mlops.core.records import Record


@dataclass(frozen=True)
class DataVersion(Record):
    """One immutable version of one data set.

    :param path: path of the data inside its repository, for example ``data/flights``
    :param rev: the revision that was asked for: a branch, tag or commit
    :param commit: full commit id that ``rev`` stood for when it was resolved
    :param digest: ``md5:<hex>`` of the content (of a directory: DVC's ``<hex>.dir``)
    :param size: bytes in all
    :param nfiles: number of files; 1 for a single file
    :param repo: address of the repository without user name or password
    :param residency: the place it may not leave, for example ``on-prem``; empty when it may go anywhere
    """

    path: str
    rev: str
    commit: str
    digest: str
    size: int
    nfiles: int = 1
    repo: str = ""
    residency: str = ""

    @property
    def uri(self) -> str:
        """Address for lineage and tags: ``dvc://<repository>/<path>@<digest>``."""
        return f"dvc://{quote(self.repo, safe='')}/{self.path}@{self.digest}"


@dataclass(frozen=True)
class ModelVersion(Record):
    """One registered version of one model.

    :param name: registered model name
    :param version: version number as the registry writes it, for example ``"3"``
    :param uri: where the model's files are, for example ``models:/m-1f2e`` or ``runs:/<run>/model``
    :param run_id: tracking run that produced it
    :param digest: ``sha256:<hex>`` over the artifact's files, recorded at registration
    :param aliases: names such as ``champion`` that point to this version now
    :param tags: the registry's tags of this version
    """

    name: str
    version: str
    uri: str
    run_id: str = ""
    digest: str = ""
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
