"""The bytes behind pointers: a cache on this machine and a DVC remote, both named by md5.

DVC's own object layer moves the bytes; there is no work tree, no index and no lock of DVC's in between. A transfer
that DVC reports as done is not believed: every name must be there afterwards. It must never run what a repository's
configuration says.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airflow_mlops.core.digests import file_digest
from airflow_mlops.core.errors import (
    IntegrityError,
    InvalidSpecError,
    MlopsError,
    PlatformUnavailableError,
    redact,
)
from airflow_mlops.core.extras import extra
from airflow_mlops.data.placement import Listing, safe_listing
from airflow_mlops.data.pointer import Pointer

_RUNS_PROGRAMS = "bearer_token_command"
_OWN_REMOTE = "airflow"


class DvcObjects:
    """A shared cache in front of the remote that a repository, or the connection, names.

    :param config: text of the repository's ``.dvc/config``
    :param remote_url: remote to use in place of the repository's default one
    :param options: DVC remote options, for example ``endpointurl``; they may hold secrets
    """

    def __init__(self, config: str, cache_dir: Path, *, remote_url: str = "", options: Mapping[str, Any]) -> None:
        self._config, self._cache_dir = config, cache_dir
        self._remote_url, self._options = remote_url, dict(options)

    def keep(self, source: Path) -> Pointer:
        """Put the bytes at *source* into the cache and return what names them.

        :raises InvalidSpecError: there is nothing to keep, or it changed while it was being read
        """
        before = _fingerprint(source)
        if not before:
            raise InvalidSpecError(f"{str(source)!r} holds no file. Write the data before taking a snapshot.")
        with _dvc_errors("keep"):
            from dvc_data.hashfile.build import build
            from dvc_data.hashfile.transfer import transfer
            from dvc_objects.fs.local import localfs

            cache = self._cache()
            staging, _, found = build(cache, str(source), localfs, "md5")
            transfer(staging, cache, {found.hash_info}, shallow=False, hardlink=False)
            pointer = Pointer(str(found.hash_info.value), sum(size for size, _ in before.values()), len(before))
        if _fingerprint(source) != before:
            self.evict_damaged(set(self.listing(pointer.oid).values()))
            raise InvalidSpecError(f"{str(source)!r} changed while it was being read. Write it first, then keep it.")
        return pointer

    def push(self, oid: str) -> None:
        """Copy an object, and all files of a folder, from the cache to the remote. The folder's list goes last.

        :raises PlatformUnavailableError: not all of it arrived
        """
        names = [*dict.fromkeys(self.listing(oid).values())]
        for batch in (names, [oid] if oid.endswith(".dir") else []):
            lost = self._move(batch, to_remote=True)
            if lost:
                raise PlatformUnavailableError(f"{len(lost)} of {len(batch)} objects did not reach the remote.")

    def fetch(self, oid: str, what: str) -> Listing:
        """Bring an object, and all files of a folder, into the cache and return what belongs to it.

        :raises IntegrityError: the remote lacks objects; the message names them
        """
        if oid.endswith(".dir"):
            self._require([oid], {oid: "its list of files"}, what)
        listing = self.listing(oid)
        self._require(listing.values(), {md5: name or what for name, md5 in listing.items()}, what)
        return listing

    def listing(self, oid: str) -> Listing:
        """Return the files of an object in the cache."""
        if not oid.endswith(".dir"):
            return {"": oid}
        entries = json.loads(self.path(oid).read_bytes())
        return safe_listing({entry["relpath"]: entry["md5"] for entry in entries}, oid)

    def size(self, listing: Listing) -> int:
        """Return the bytes of all files of *listing*, which are in the cache."""
        return sum(self.path(md5).stat().st_size for md5 in listing.values())

    def path(self, oid: str) -> Path:
        """Return where the cache keeps an object."""
        return self._cache_dir / "files" / "md5" / oid[:2] / oid[2:]

    def copy(self, listing: Listing, to: Path) -> None:
        """Write the files of *listing* to *to*: shared blocks where the file system can, else copies, never links."""
        targets = [to / name if name else to for name in listing]
        for folder in {target.parent for target in targets}:
            folder.mkdir(parents=True, exist_ok=True)
        with _dvc_errors("copy"):
            from dvc_objects.fs.generic import transfer
            from dvc_objects.fs.local import localfs

            sources = [str(self.path(md5)) for md5 in listing.values()]
            transfer(localfs, sources, localfs, [str(t) for t in targets], links=["reflink", "copy"])

    def evict_damaged(self, oids: Iterable[str]) -> list[str]:
        """Remove the objects from the cache whose bytes differ from their name, and return their names."""
        damaged = [
            oid
            for oid in oids
            if self.path(oid).exists() and file_digest(self.path(oid), "md5") != f"md5:{oid.removesuffix('.dir')}"
        ]
        for oid in damaged:
            self.path(oid).unlink(missing_ok=True)
        return damaged

    def _require(self, oids: Iterable[str], names: Mapping[str, str], what: str) -> None:
        wanted = [oid for oid in dict.fromkeys(oids) if not self.path(oid).exists()]
        lost = self._move(wanted, to_remote=False) if wanted else []
        if lost:
            shown = ", ".join(f"{names[oid]} (md5 {oid})" for oid in lost[:5])
            raise IntegrityError(
                f"{len(lost)} of {len(names)} objects of {what} are missing from the remote: {shown}. "
                "Push them again from where the version was made."
            )

    def _move(self, oids: list[str], *, to_remote: bool) -> list[str]:
        """Transfer objects between cache and remote; return those that no side has."""
        missing: list[str] = []
        with _dvc_errors("push" if to_remote else "fetch"):
            from dvc_data.hashfile.hash_info import HashInfo
            from dvc_data.hashfile.transfer import transfer

            cache, remote = self._cache(), self._remote()
            source, target = (cache, remote) if to_remote else (remote, cache)
            result = transfer(
                source,
                target,
                {HashInfo("md5", oid) for oid in oids},
                validate_status=lambda status: missing.extend(str(found.value) for found in status.missing),
            )
        if result.failed:
            raise PlatformUnavailableError(f"{len(result.failed)} of {len(oids)} objects could not be transferred.")
        return sorted(missing)

    def _cache(self) -> Any:
        from dvc_data.hashfile.db.local import LocalHashFileDB
        from dvc_data.hashfile.state import State
        from dvc_objects.fs.local import localfs

        state = State(str(self._cache_dir), str(self._cache_dir / "state"))
        make: Any = LocalHashFileDB
        return make(localfs, str(self._cache_dir / "files" / "md5"), hash_name="md5", state=state)

    def _remote(self) -> Any:
        from dvc.fs import get_cloud_fs
        from dvc_data.hashfile.db import get_odb

        with tempfile.TemporaryDirectory() as folder:
            config = self._load(Path(folder))
        kind, settings, path = get_cloud_fs(config, name=config["core"]["remote"])
        if settings.get("version_aware") or settings.get("worktree"):
            raise InvalidSpecError("Versioned cloud remotes cannot be used. Set remote_url to a plain DVC remote.")
        filesystem = kind(**settings)
        make: Any = get_odb
        return make(filesystem, filesystem.join(path, "files", "md5"), **{**settings, "hash_name": "md5"})

    def _load(self, folder: Path) -> Any:
        from dvc.config import Config

        (folder / "config").write_text(self._config)
        own = {"core": {"remote": _OWN_REMOTE}, "remote": {_OWN_REMOTE: {"url": self._remote_url}}}
        config = Config(str(folder), config=own if self._remote_url else None)
        name = str(config["core"].get("remote", ""))
        settings = config["remote"].get(name)
        if settings is None:
            raise InvalidSpecError("The repository names no default DVC remote. Set the extra 'remote_url'.")
        settings.update(self._options)
        _refuse(name, settings)
        return config


def _refuse(name: str, settings: Mapping[str, Any]) -> None:
    from dvc.config_schema import RelPath

    if _RUNS_PROGRAMS in settings:
        raise InvalidSpecError(f"Remote {name!r} sets {_RUNS_PROGRAMS!r}, which runs a program. Remove it.")
    if isinstance(settings["url"], RelPath):
        raise InvalidSpecError(f"Remote {name!r} has an address relative to a checkout. Set the extra 'remote_url'.")


def _fingerprint(source: Path) -> dict[str, tuple[int, int]]:
    from airflow_mlops.data.placement import files_below

    if not source.exists():
        return {}
    stats = {name: path.stat() for name, path in files_below(source).items()}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


@contextmanager
def _dvc_errors(verb: str) -> Iterator[None]:
    """Turn what DVC and its file systems raise into errors by remedy. What we raised ourselves passes."""
    try:
        with extra("dvc"):
            yield
    except MlopsError:
        raise
    except Exception as error:  # noqa: BLE001 - every file system raises kinds of its own
        text = f"DVC could not {verb} data: {type(error).__name__}: {redact(str(error))[:300]!r}."
        if _hopeless(error):
            raise InvalidSpecError(f"{text} Check the remote's address, options and rights.") from None
        raise PlatformUnavailableError(text) from None


def _hopeless(error: Exception) -> bool:
    from dvc.config import ConfigError
    from dvc_data.hashfile.build import IgnoreInCollectedDirError
    from dvc_objects.fs.errors import AuthError, RemoteMissingDepsError
    from dvc_objects.fs.errors import ConfigError as RemoteConfigError

    kinds = (ConfigError, RemoteConfigError, AuthError, RemoteMissingDepsError, IgnoreInCollectedDirError)
    return isinstance(error, (*kinds, PermissionError, ImportError)) or type(error).__name__ == "NoCredentialsError"
