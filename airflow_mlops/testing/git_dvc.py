"""A real git remote and a real DVC remote in a folder, for tests that must not need a network."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from airflow_mlops.core.refs import DataVersion

_WHO = {
    "GIT_AUTHOR_NAME": "Tester",
    "GIT_AUTHOR_EMAIL": "tester@example.org",
    "GIT_COMMITTER_NAME": "Tester",
    "GIT_COMMITTER_EMAIL": "tester@example.org",
    "GIT_CONFIG_GLOBAL": os.devnull,
}


class GitDvcRepository:
    """A bare git repository with branch ``main`` that names a DVC remote.

    :param folder: an empty folder; holds ``repo.git``, ``remote`` and a work tree of the maker
    :param remote_url: where the objects go; default ``<folder>/remote``
    """

    def __init__(self, folder: Path, remote_url: str = "") -> None:
        self.folder = folder
        self.bare, self.work, self.remote = folder / "repo.git", folder / "work", folder / "remote"
        folder.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q", "--bare", "-b", "main", str(self.bare), cwd=folder)
        self.git("init", "-q", "-b", "main", str(self.work), cwd=folder)
        self.git("remote", "add", "origin", str(self.bare))
        url = remote_url or str(self.remote)
        config = f"[core]\n    remote = storage\n['remote \"storage\"']\n    url = {url}\n"
        self.commit({".dvc/config": config, ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n"}, "Start")

    @property
    def address(self) -> str:
        """Path of the bare repository."""
        return str(self.bare)

    def commit(self, files: Mapping[str, str], message: str, *, tag: str | None = None) -> str:
        """Commit *files* on top of ``main`` as another person would, push, and return the commit id."""
        if self.git("ls-remote", "origin", "main"):
            self.git("fetch", "-q", "origin", "main")
            self.git("reset", "-q", "--hard", "FETCH_HEAD")
        for path, text in files.items():
            (self.work / path).parent.mkdir(parents=True, exist_ok=True)
            (self.work / path).write_text(text)
        self.git("add", "-f", *files)
        self.git("commit", "-q", "-m", message)
        if tag:
            self.git("tag", "-a", tag, "-m", message)
        self.git("push", "-q", "--follow-tags", "origin", "HEAD:main")
        return self.git("rev-parse", "HEAD")

    def object_path(self, digest: str) -> Path:
        """Return where the local remote keeps an object, given ``md5:<hex>``."""
        oid = digest.removeprefix("md5:")
        return self.remote / "files" / "md5" / oid[:2] / oid[2:]

    def lose(self, version: DataVersion) -> None:
        """Delete one object of a version from the local remote."""
        self.object_path(version.digest).unlink()

    def git(self, *args: str, cwd: Path | None = None) -> str:
        """Run git in the maker's work tree and return what it printed."""
        result = subprocess.run(
            ["git", *args],
            cwd=cwd or self.work,
            env={**os.environ, **_WHO},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()
