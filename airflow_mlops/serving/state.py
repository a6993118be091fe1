"""What the gateway must remember: endpoints, revisions, weights. Frozen values, pure changes, one atomic file.

A change is computed here, written to the file, and only then acted on: after a crash the gateway serves what the last
accepted request asked for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from airflow_mlops.core.errors import ConflictError, InvalidSpecError, NotFoundError, close_match
from airflow_mlops.core.records import Record


@dataclass(frozen=True)
class RevisionRecord(Record):
    """One revision as it was asked for.

    :param source: folder the files came from; read again only when the gateway died while it copied them
    :param folder: name of the gateway's own copy, never used twice
    :param proven: it was ready once, so its worker is restarted for ever
    :param detail: why it failed for good; empty while there is hope
    """

    revision: str
    model: str
    version: str
    digest: str
    source: str
    folder: str
    proven: bool = False
    detail: str = ""


@dataclass(frozen=True)
class EndpointRecord(Record):
    """One endpoint.

    :param traffic: revision -> percent; sums to 100, or is empty before the first shift
    :param stable: the revision that was last wholly rolled out
    :param previous: the one that was so before it
    :param rolled_back: the last change of traffic was a rollback, so another one changes nothing
    """

    endpoint: str
    revisions: tuple[RevisionRecord, ...] = ()
    traffic: Mapping[str, float] | None = None
    stable: str = ""
    previous: str = ""
    rolled_back: bool = False

    @property
    def shares(self) -> dict[str, float]:
        """Revision -> percent of every revision, oldest first."""
        return {record.revision: (self.traffic or {}).get(record.revision, 0.0) for record in self.revisions}

    def find(self, revision: str) -> RevisionRecord:
        """Return the revision of that name.

        :raises NotFoundError: there is none; the message lists those there are
        """
        for record in self.revisions:
            if record.revision == revision:
                return record
        names = [record.revision for record in self.revisions]
        raise NotFoundError(
            f"Endpoint {self.endpoint!r} has no revision {revision!r}: {close_match(revision, names)}"
            f"It has {', '.join(names) or 'none'}."
        )

    def put(self, new: RevisionRecord) -> Self:
        """Add *new*, or put it in the place of the record of that name."""
        if all(old.revision != new.revision for old in self.revisions):
            return replace(self, revisions=(*self.revisions, new))
        return replace(self, revisions=tuple(new if old.revision == new.revision else old for old in self.revisions))

    def shifted(self, traffic: Mapping[str, float]) -> Self:
        """Give *traffic* to the revisions; a revision that gets all of it becomes the stable one.

        :raises InvalidSpecError: a percent is below 0 or they do not sum to 100
        :raises NotFoundError: there is no such revision
        """
        for revision, percent in traffic.items():
            self.find(revision)
            if not 0 <= percent <= 100:
                raise InvalidSpecError(f"The traffic of {revision!r} must be 0 to 100 percent, got {percent!r}.")
        if abs(sum(traffic.values()) - 100) > 1e-6:
            raise InvalidSpecError(
                f"Traffic must sum to 100 percent, got {sum(traffic.values()):g}: {dict(traffic)!r}."
            )
        shares = {revision: float(percent) for revision, percent in traffic.items() if percent > 0}
        most = max(shares, key=lambda revision: shares[revision])
        if self.traffic and self.shares == replace(self, traffic=shares).shares:
            return self
        whole = len(shares) == 1 or not self.stable
        settled = self._settle(most) if whole else self
        return replace(settled, traffic=shares, rolled_back=False)

    def _settle(self, revision: str) -> Self:
        if revision == self.stable:
            return self
        return replace(self, stable=revision, previous=self.stable)

    def rollback_target(self) -> str:
        """Return the revision that a rollback gives all traffic to; empty when the last change was a rollback.

        :raises ConflictError: no revision was wholly rolled out before
        """
        if self.rolled_back:
            return ""
        whole = self.shares.get(self.stable) == 100
        target = self.previous if whole or not self.stable else self.stable
        if not target:
            raise ConflictError(
                f"Endpoint {self.endpoint!r} has no earlier revision to go back to. Shift traffic instead."
            )
        return target

    def back_at(self, revision: str) -> Self:
        """Give all traffic to *revision*, which :meth:`rollback_target` returned."""
        previous = "" if revision == self.previous else self.previous
        return replace(self, traffic={revision: 100.0}, stable=revision, previous=previous, rolled_back=True)

    def without(self, revision: str) -> Self:
        """Take *revision* away; an absent one is left alone.

        :raises InvalidSpecError: it still has traffic
        """
        if share := self.shares.get(revision, 0.0):
            raise InvalidSpecError(
                f"Revision {revision!r} of {self.endpoint!r} still gets {share:g} percent of the traffic. "
                "Shift it away first."
            )
        return replace(
            self,
            revisions=tuple(record for record in self.revisions if record.revision != revision),
            stable="" if self.stable == revision else self.stable,
            previous="" if self.previous == revision else self.previous,
        )


def load_state(path: Path) -> dict[str, EndpointRecord]:
    """Return the endpoints in *path*; none when there is no such file."""
    if not path.exists():
        return {}
    found = [EndpointRecord.from_dict(item) for item in json.loads(path.read_text(encoding="utf-8"))["endpoints"]]
    return {record.endpoint: record for record in found}


def save_state(path: Path, endpoints: Mapping[str, EndpointRecord]) -> None:
    """Write *path* so that after a crash it holds either the old state or the new one."""
    text = json.dumps({"endpoints": [record.to_dict() for record in endpoints.values()]}, indent=1)
    replace_file(path, text)


def replace_file(path: Path, text: str) -> None:
    """Write *text* to *path* atomically and durably."""
    draft = path.with_name(f".{path.name}.tmp")
    with draft.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)
