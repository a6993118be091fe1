"""Buckets as folders, and of S3's protocol what a client needs to read one object."""

from __future__ import annotations

import io
import shutil
import tarfile
import urllib.parse
from pathlib import Path

from airflow_mlops.testing.sagemaker.problems import Problem
from airflow_mlops.testing.wire.listener import Answer


class Storage:
    """All buckets; any name is one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, address: str) -> Path:
        """Return the file or folder of ``s3://<bucket>/<key>``."""
        return self._folder / address.removeprefix("s3://").rstrip("/")

    def fetch(self, address: str, to: Path) -> None:
        """Copy all objects below a prefix into a folder.

        :raises FileNotFoundError: there is none
        """
        source = self.path(address)
        if source.is_dir():
            shutil.copytree(source, to, dirs_exist_ok=True)
        else:
            to.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, to)

    def archive(self, folders: list[Path], address: str) -> None:
        """Put what is in *folders* into one compressed archive, if there is anything."""
        files = [(path, path.relative_to(folder)) for folder in folders for path in sorted(folder.rglob("*"))]
        if not files:
            return
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for path, name in files:
                if path.is_file():
                    archive.add(path, str(name))
        target = self.path(address)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(buffer.getvalue())

    def answer(self, method: str, target: str) -> Answer:
        """Answer a request for one object.

        :raises Problem: there is none, or it is another request
        """
        if method != "GET":
            raise Problem("MethodNotAllowed", "The fake serves GetObject only.")
        found = self._folder / urllib.parse.unquote(target.partition("?")[0]).lstrip("/")
        if not found.is_file():
            raise Problem("NoSuchKey", "The specified key does not exist.")
        return Answer(200, found.read_bytes(), content_type="application/octet-stream", headers={"ETag": '"fake"'})
