"""What etcd and the watch cache are to a real server: objects, resource versions, and the history of changes.

Objects are plain JSON that nobody changes in place: a change replaces the object under the lock and is added to the
history, from which watches are fed. The history can be compacted, after which an older watch gets 410.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import dataclass

from airflow_mlops.testing.kubernetes.kinds import Kind
from airflow_mlops.testing.kubernetes.plants import Plants
from airflow_mlops.testing.kubernetes.problems import Json, Problem

Key = tuple[str, str]


@dataclass(frozen=True)
class Change:
    """One change: *new* is the object after it (for a deletion the last state), *old* the one before."""

    version: int
    type: str
    kind: Kind
    new: Json
    old: Json | None


class Store:
    """Objects by kind, namespace and name; every method may be called from any thread."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.version = 1
        self.plants = Plants()
        self.compacted = 0
        self._compacted_open = 0
        self.history: list[Change] = []
        self._objects: dict[Kind, dict[Key, Json]] = {}

    def create(self, kind: Kind, item: Json) -> Json:
        """Add an object that has a name.

        :raises Problem: 409 AlreadyExists
        """
        with self.changed:
            key = _key(item)
            if key in self._objects.setdefault(kind, {}):
                raise Problem("AlreadyExists", f'{kind.resource} "{key[1]}" already exists')
            return self._record("ADDED", kind, item, None)

    def get(self, kind: Kind, namespace: str, name: str) -> Json:
        """Return one object; it must not be changed.

        :raises Problem: 404 NotFound
        """
        found = self.find(kind, namespace, name)
        if found is None:
            raise Problem("NotFound", f'{kind.resource} "{name}" not found')
        return found

    def find(self, kind: Kind, namespace: str, name: str) -> Json | None:
        """Return one object or None; it must not be changed."""
        with self.changed:
            return self._objects.get(kind, {}).get((namespace, name))

    def change(self, kind: Kind, item: Json, alter: Callable[[Json], None]) -> Json | None:
        """Apply *alter* to a copy of the stored object and keep it; None if the object is gone or was made anew.

        Nothing is recorded if nothing changed.
        """
        with self.changed:
            old = self.find(kind, *_key(item))
            if old is None or old["metadata"]["uid"] != item["metadata"]["uid"]:
                return None
            new = copy.deepcopy(old)
            alter(new)
            if new == old:
                return old
            if new.get("spec") != old.get("spec") and "generation" in new["metadata"]:
                new["metadata"]["generation"] += 1
            return self._record("MODIFIED", kind, new, old)

    def remove(self, kind: Kind, item: Json) -> None:
        """Delete an object for good; one that is gone already is left alone."""
        with self.changed:
            old = self.find(kind, *_key(item))
            if old is not None and old["metadata"]["uid"] == item["metadata"]["uid"]:
                self._record("DELETED", kind, copy.deepcopy(old), old)

    def all(self, kind: Kind, namespace: str = "") -> list[Json]:
        """Return the objects of one namespace (or of all), ordered by namespace and name."""
        with self.changed:
            found = self._objects.get(kind, {})
            return [found[key] for key in sorted(found) if not namespace or key[0] == namespace]

    def owned(self, kind: Kind, owner: Json) -> list[Json]:
        """Return the objects of a kind that belong to *owner*, in its namespace."""
        metadata = owner["metadata"]
        found = self.all(kind, metadata.get("namespace", ""))
        return [
            item
            for item in found
            if any(one["uid"] == metadata["uid"] for one in item["metadata"].get("ownerReferences", []))
        ]

    def after(self, version: int, wait: float, *, is_open: bool = True) -> tuple[list[Change], int]:
        """Return the changes after *version* and the version now, waiting for a change up to *wait* seconds.

        :param is_open: the reader has read on since before the compaction; a new one must be newer than it
        :raises Problem: 410, they were compacted
        """
        with self.changed:
            if version >= self.version and wait > 0:
                self.changed.wait(wait)
            if version < (self._compacted_open if is_open else self.compacted):
                raise Problem("Expired", f"too old resource version: {version} ({self.compacted})")
            return self.history[_position(self.history, version) :], self.version

    def compact(self) -> None:
        """Forget the history: a watch that starts from a version known until now must list again."""
        with self.changed:
            self._compacted_open = self.version
            self.compacted = self._tick()
            self.history.clear()
            self.changed.notify_all()

    def wake(self) -> None:
        """Let everybody who waits for a change look around."""
        with self.changed:
            self.changed.notify_all()

    def _tick(self) -> int:
        self.version += 1
        return self.version

    def _record(self, kind_of_change: str, kind: Kind, new: Json, old: Json | None) -> Json:
        new["metadata"]["resourceVersion"] = str(self._tick())
        if kind_of_change == "DELETED":
            del self._objects[kind][_key(new)]
        else:
            self._objects.setdefault(kind, {})[_key(new)] = new
        self.history.append(Change(self.version, kind_of_change, kind, new, old))
        self.changed.notify_all()
        return new


def _key(item: Json) -> Key:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _position(history: list[Change], version: int) -> int:
    """Return where the changes after *version* begin; the newest are looked at first."""
    position = len(history)
    while position and history[position - 1].version > version:
        position -= 1
    return position
