"""The small YAML file that stands in git for data that is elsewhere. Pure text in, values out.

It must never name a place outside the folder it describes: a pointer comes from a repository others can write to.
See https://dvc.org/doc/user-guide/project-structure/dvc-files.
"""

from __future__ import annotations

import json
import posixpath
import re
from dataclasses import dataclass, field
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError, NotFoundError, UnsupportedFeatureError, close_match
from airflow_mlops.core.residency import EXTRA, place

OBJECT = re.compile(r"[0-9a-f]{32}(\.dir)?")
"""Name of an object: the md5 of a file, or of the list of files of a folder with ``.dir``."""


@dataclass(frozen=True)
class Pointer:
    """What a pointer says: name of the object, bytes and files in all, and the place that the data may not leave.

    Two pointers to the same bytes are equal, wherever the bytes may go.
    """

    oid: str
    size: int
    nfiles: int = 1
    residency: str = field(default="", compare=False)

    @property
    def digest(self) -> str:
        """Return ``md5:<hex>``; of a folder ``md5:<hex>.dir``."""
        return f"md5:{self.oid}"


def tracked_path(path: str) -> str:
    """Return *path* in its one spelling: relative, without ``.``, ``..`` and a slash at the end.

    :raises InvalidSpecError: it is empty, absolute or leads out of the repository
    """
    clean = posixpath.normpath(path.strip().removesuffix(".dvc"))
    leaves = clean.startswith(("/", "..", "-")) or clean in (".", ".dvc", ".git")
    if leaves or not path.strip() or not clean.isprintable():
        raise InvalidSpecError(f"{path!r} is not a path inside a repository. Give one such as 'data/flights'.")
    return clean


def pointer_path(path: str) -> str:
    """Return where the pointer of *path* is: ``data/flights`` -> ``data/flights.dvc``."""
    return f"{path}.dvc"


def read_pointer(text: str, path: str) -> Pointer:
    """Read the pointer of *path*.

    :raises InvalidSpecError: it is not a pointer
    :raises UnsupportedFeatureError: it was written by DVC 2 or for a versioned cloud remote
    """
    import yaml

    try:
        document = yaml.load(text, yaml.BaseLoader)  # noqa: S506 - makes nothing but text, lists and maps
        out = document["outs"][0]
        oid = str(out["md5"]) if "md5" in out else ""
        size, nfiles = int(out.get("size", -1)), int(out.get("nfiles", 1))
    except (yaml.YAMLError, TypeError, KeyError, IndexError, ValueError, AttributeError) as error:
        raise InvalidSpecError(f"{pointer_path(path)!r} is not a DVC pointer. Track {path!r} with DVC.") from error
    if not OBJECT.fullmatch(oid):
        raise UnsupportedFeatureError("dvc", "outs", f"the pointer of {path!r} names no md5 object")
    if out.get("hash") != "md5":
        raise UnsupportedFeatureError(
            "dvc", "hash", f"{path!r} was added by DVC 2; run 'dvc cache migrate --dvc-files' and commit"
        )
    return Pointer(oid, size, nfiles, _residency(document, out, path))


def _residency(document: dict[str, Any], out: dict[str, Any], path: str) -> str:
    """Return the ``residency`` that people wrote below ``meta``, which DVC leaves alone, of the out or of the file.

    :raises InvalidSpecError: it is no name of a place, or the two differ: data must not get loose by a slip
    """
    metas = [meta for meta in (document.get("meta"), out.get("meta")) if isinstance(meta, dict)]
    what = f"{path!r} in {pointer_path(path)!r}"
    found = {place(meta[EXTRA], what) for meta in metas if EXTRA in meta}
    if len(found) > 1:
        raise InvalidSpecError(f"The residency of {what} is {' and '.join(sorted(found))}. Keep one of them.")
    return found.pop() if found else ""


def write_pointer(pointer: Pointer, path: str) -> str:
    """Return the text of the pointer of *path*, in the form DVC itself reads.

    The name of the object is quoted: unquoted, one without letters is a number in YAML.
    """
    nfiles = f"  nfiles: {pointer.nfiles}\n" if pointer.oid.endswith(".dir") else ""
    name = json.dumps(posixpath.basename(path), ensure_ascii=False)
    stays = json.dumps(pointer.residency, ensure_ascii=False)
    meta = f"  meta:\n    {EXTRA}: {stays}\n" if pointer.residency else ""
    return f"outs:\n- md5: '{pointer.oid}'\n  size: {pointer.size}\n{nfiles}  hash: md5\n  path: {name}\n{meta}"


def ignoring(text: str, path: str) -> str:
    """Return the text of a ``.gitignore`` with a line that keeps the data of *path* out of git."""
    line = f"/{posixpath.basename(path)}"
    if line in text.splitlines():
        return text
    return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{line}\n"


def unknown_path(path: str, rev: str, files: list[str]) -> NotFoundError:
    """Return the error for a path without a pointer, with the tracked paths."""
    tracked = sorted(name.removesuffix(".dvc") for name in files if name.endswith(".dvc"))
    shown = ", ".join(tracked[:10]) or "none"
    return NotFoundError(
        f"DVC tracks no {path!r} at revision {rev!r}: {close_match(path, tracked)}"
        f"Tracked there: {shown}{', ...' if len(tracked) > 10 else ''}."
    )
