"""The small YAML file that stands in git for data that is elsewhere. Pure text in, values out.

It must never name a place outside the folder it describes: a pointer comes from a repository others can write to.
See https://dvc.org/doc/user-guide/project-structure/dvc-files.
"""

from __future__ import annotations

import json
import posixpath
import re
from dataclasses import dataclass

from airflow_mlops.core.errors import InvalidSpecError, NotFoundError, UnsupportedFeatureError, close_match

OBJECT = re.compile(r"[0-9a-f]{32}(\.dir)?")
"""Name of an object: the md5 of a file, or of the list of files of a folder with ``.dir``."""


@dataclass(frozen=True)
class Pointer:
    """What a pointer says: name of the object, bytes and files in all."""

    oid: str
    size: int
    nfiles: int = 1

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
        out = yaml.load(text, yaml.BaseLoader)["outs"][0]  # noqa: S506 - makes nothing but text, lists and maps
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
    return Pointer(oid, size, nfiles)


def write_pointer(pointer: Pointer, path: str) -> str:
    """Return the text of the pointer of *path*, in the form DVC itself reads.

    The name of the object is quoted: unquoted, one without letters is a number in YAML.
    """
    nfiles = f"  nfiles: {pointer.nfiles}\n" if pointer.oid.endswith(".dir") else ""
    name = json.dumps(posixpath.basename(path), ensure_ascii=False)
    return f"outs:\n- md5: '{pointer.oid}'\n  size: {pointer.size}\n{nfiles}  hash: md5\n  path: {name}\n"


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
