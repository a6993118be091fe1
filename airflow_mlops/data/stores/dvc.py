"""Data versions kept by DVC: pointers in git, bytes in a remote.

Every call works on its own: no checkout is shared between tasks, only a cache that holds each object once. The data
is pushed before the pointer, so that nobody ever sees a version whose bytes are not there.
"""

from __future__ import annotations

import posixpath
import random
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from airflow_mlops.core.errors import ConflictError, IntegrityError, InvalidSpecError, NotFoundError, close_match
from airflow_mlops.core.locks import file_lock
from airflow_mlops.core.refs import DataVersion
from airflow_mlops.data.objects import DvcObjects
from airflow_mlops.data.placement import already_there, appearing_at, differences
from airflow_mlops.data.pointer import (
    OBJECT,
    Pointer,
    ignoring,
    pointer_path,
    read_pointer,
    tracked_path,
    unknown_path,
    write_pointer,
)
from airflow_mlops.platforms.git import GitRepository, RefMovedError

_PUSHES = 5


class DvcStore:
    """A :class:`~airflow_mlops.data.contract.DataStore` over a git repository and a DVC remote.

    :param repo: path or URL of the git repository
    :param workdir: folder for git mirrors and materialised data; may be shared by all tasks of a machine
    :param cache_dir: folder for objects; default ``<workdir>/cache``
    :param login: user name for git over http
    :param password: password or token for git over http
    :param remote_url: DVC remote to use in place of the repository's default one
    :param remote_options: options of that remote as DVC calls them, for example ``endpointurl``
    :param author: ``Name <mail>`` of the commits of snapshots
    """

    name = "dvc"

    def __init__(
        self,
        repo: str,
        *,
        workdir: Path,
        cache_dir: Path | None = None,
        login: str = "",
        password: str = "",
        remote_url: str = "",
        remote_options: Mapping[str, Any] | None = None,
        author: str = "airflow-mlops <airflow-mlops@localhost>",
    ) -> None:
        self.workdir = workdir
        self.cache_dir = cache_dir or workdir / "cache"
        self.git = GitRepository(repo, workdir / "git", login=login, password=password, author=author)
        self._remote_url, self._options = remote_url, dict(remote_options or {})

    def __repr__(self) -> str:
        return f"DvcStore({self.git.address!r})"

    def resolve(self, path: str, rev: str = "HEAD") -> DataVersion:
        """Name the version of *path* that *rev* means now, from its pointer alone.

        :param rev: branch, tag, commit id, or ``HEAD`` for the newest commit of the default branch
        """
        path = tracked_path(path)
        commit = self.git.commit_of(rev)
        pointer = self._pointer(commit, path)
        if pointer is None:
            raise unknown_path(path, rev, self.git.paths(commit))
        return self._version(path, rev, commit, pointer)

    def materialise(self, version: DataVersion, to: Path | None = None) -> Path:
        """Put the version's bytes at *to* and return it. Concurrent calls share one download.

        :param to: a free place, or one that holds these bytes; default a folder of the work directory named by digest
        :raises InvalidSpecError: *to* holds other bytes
        """
        to = to or self.place(version)
        oid = _object_of(version)
        objects = self._objects(version.commit)
        what = f"{version.path!r} at {version.rev!r}"
        with file_lock(self.cache_dir / "locks" / oid):
            listing = objects.fetch(oid, what)
            _require_complete(version, len(listing), objects.size(listing), what)
            if already_there(to, listing):
                return to
            if not self._copied(objects, listing, to):
                self._copy_again(objects, oid, what, to)
        return to

    def snapshot(self, source: Path, path: str, *, message: str, tag: str | None = None) -> DataVersion:
        """Keep the bytes at *source* as a new version of *path* on the default branch, with the residency it has there.

        :param tag: name of a git tag; the same bytes under the same tag are the same version
        """
        path = tracked_path(path)
        branch = f"refs/heads/{self.git.default_branch()}"
        start = self.git.commit_of(branch)
        objects = self._objects(start)
        pointer = objects.keep(source)
        known = self._tagged(path, tag, pointer)
        if known is not None:
            return known
        objects.push(pointer.oid)
        return self._publish(path, pointer, message=message, tag=tag, branch=branch, start=start)

    def place(self, version: DataVersion) -> Path:
        """Return the folder of the work directory where this version belongs: the same for every task."""
        name = posixpath.basename(tracked_path(version.path))
        return self.workdir / "data" / _object_of(version).removesuffix(".dir") / name

    def read_file(self, path: str, rev: str) -> str:
        """Return the text of a file that is kept in git itself, for example a suite or a script.

        :raises NotFoundError: there is no such file at *rev*; the message lists a close one
        """
        path = tracked_path(path)
        commit = self.git.commit_of(rev)
        content = self.git.read(commit, path)
        if content is None:
            raise _unknown_file(path, rev, self.git.paths(commit))
        return content.decode()

    def export(self, rev: str, to: Path) -> Path:
        """Write the files that git itself keeps at *rev*, such as training code, to the folder *to*."""
        return self.git.export(self.git.commit_of(rev), to)

    def ping(self) -> str:
        """Return the default branch, after asking the repository for it."""
        return self.git.default_branch()

    def _publish(
        self, path: str, pointer: Pointer, *, message: str, tag: str | None, branch: str, start: str
    ) -> DataVersion:
        """Commit and push the pointer; when somebody was faster, do it again on top of theirs."""
        before, tip = self._pointer(start, path), start
        for attempt in range(_PUSHES):
            if attempt:
                time.sleep(random.uniform(0, 0.2 * 2**attempt))  # noqa: S311 - spreads writers, guards nothing
                tip = self.git.commit_of(branch)
            now = self._pointer(tip, path)
            if now not in (before, pointer):
                raise ConflictError(f"{path!r} was changed by commit {tip!r} meanwhile. Look at it, then try again.")
            known = self._tagged(path, tag, pointer)
            if known is not None:
                return known
            pointer = replace(pointer, residency=now.residency if now else "")
            commit = tip if now == pointer else self._commit(tip, path, pointer, message)
            try:
                self.git.push(commit, [branch, *([f"refs/tags/{tag}"] if tag else [])])
            except RefMovedError:
                continue
            return self._version(path, tag or commit, commit, pointer)
        raise ConflictError(f"{_PUSHES} pushes of {path!r} came too late. Try again when fewer tasks write.")

    def _commit(self, tip: str, path: str, pointer: Pointer, message: str) -> str:
        ignore = posixpath.join(posixpath.dirname(path), ".gitignore")
        known = (self.git.read(tip, ignore) or b"").decode()
        files = {
            pointer_path(path): write_pointer(pointer, path).encode(),
            ignore: ignoring(known, path).encode(),
        }
        return self.git.commit(tip, files, message)

    def _tagged(self, path: str, tag: str | None, pointer: Pointer) -> DataVersion | None:
        """Return the version that *tag* names already, if it is this one."""
        if not tag or f"refs/tags/{tag}" not in self.git.refs():
            return None
        commit = self.git.commit_of(f"refs/tags/{tag}")
        found = self._pointer(commit, path)
        if found is None or found != pointer:
            held = found.digest if found else "no version of it"
            raise ConflictError(f"Tag {tag!r} names {held} of {path!r}, not {pointer.digest}. Choose another tag.")
        return self._version(path, tag, commit, found)

    def _pointer(self, commit: str, path: str) -> Pointer | None:
        content = self.git.read(commit, pointer_path(path))
        return None if content is None else read_pointer(content.decode(), path)

    def _version(self, path: str, rev: str, commit: str, pointer: Pointer) -> DataVersion:
        size, nfiles = pointer.size, pointer.nfiles
        return DataVersion(path, rev, commit, pointer.digest, size, nfiles, self.git.address, pointer.residency)

    def _objects(self, commit: str) -> DvcObjects:
        self.git.have(commit)
        config = (self.git.read(commit, ".dvc/config") or b"").decode()
        return DvcObjects(config, self.cache_dir, remote_url=self._remote_url, options=self._options)

    def _copied(self, objects: DvcObjects, listing: Mapping[str, str], to: Path) -> bool:
        """Copy and check; leave nothing when a file differs from its digest, and drop it from the cache."""
        try:
            with appearing_at(to) as scratch:
                objects.copy(listing, scratch)
                wrong = differences(scratch, listing)
                if wrong:
                    raise _DamagedError
        except _DamagedError:
            objects.evict_damaged(listing[name] for name in wrong if name in listing)
            return False
        return True

    def _copy_again(self, objects: DvcObjects, oid: str, what: str, to: Path) -> None:
        """Fetch what was evicted from a damaged cache anew. If it differs again, the remote is damaged."""
        listing = objects.fetch(oid, what)
        if not self._copied(objects, listing, to):
            raise IntegrityError(f"Objects of {what} differ from their md5 on the remote. Push the version again.")


class _DamagedError(Exception):
    """A copied file differs from its digest."""


def _object_of(version: DataVersion) -> str:
    oid = version.digest.removeprefix("md5:")
    if not OBJECT.fullmatch(oid):
        raise InvalidSpecError(f"{version.digest!r} is not a digest of DVC. Give what resolve or snapshot returned.")
    return oid


def _require_complete(version: DataVersion, nfiles: int, size: int, what: str) -> None:
    if (nfiles, size) != (version.nfiles, version.size):
        raise IntegrityError(
            f"{what} has {nfiles} files of {size} bytes, its pointer says {version.nfiles} of {version.size}. "
            "Push it again from where it was made."
        )


def _unknown_file(path: str, rev: str, files: list[str]) -> NotFoundError:
    return NotFoundError(f"Revision {rev!r} has no file {path!r}: {close_match(path, files)}Commit it, then try again.")
