"""A mutex in the model registry itself, because MLflow's aliases have no compare-and-set.

The name of a registered model is unique, so of many who create ``__lock__.<model>.<purpose>`` exactly one succeeds.
A holder that died is followed up after its lease: the stale lock is renamed to a name made from its owner, which
again only one can do, even one that read the lock long ago. The lease is not a fence: who holds a lock for longer than
its lease must stop, see :meth:`Lease.check`.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from airflow_mlops.core.errors import ConflictError, MlopsError, NotFoundError, PlatformUnavailableError
from airflow_mlops.platforms.mlflow import MLflowClient

PREFIX = "__lock__."
LEASE_SECONDS = 60.0
WAIT_SECONDS = 90.0
TOMBSTONE_SECONDS = 3600.0
FAILURES = 4
"""How often in a row the server may fail before taking or releasing a lock is given up."""


@dataclass(frozen=True)
class Lease:
    """A held lock. ``expires`` is in seconds since 1970."""

    name: str
    owner: str
    expires: float

    def check(self, margin: float = 5.0) -> None:
        """Stop a holder whose lease ends within *margin* seconds, before it writes.

        :raises ConflictError: somebody else may hold the lock soon
        """
        if time.time() > self.expires - margin:
            raise ConflictError(f"The lock {self.name!r} was held for too long. Nothing more was changed. Try again.")


@contextmanager
def alias_lock(
    client: MLflowClient, model: str, purpose: str, *, lease: float = LEASE_SECONDS, wait: float = WAIT_SECONDS
) -> Iterator[Lease]:
    """Hold the lock of *purpose*, for example an alias, on *model*.

    :param lease: seconds after which others may take the lock over
    :param wait: seconds to wait for another holder
    :raises ConflictError: another holder kept it for the whole wait
    """
    held = _acquire(client, f"{PREFIX}{model}.{purpose}", lease, wait)
    try:
        yield held
    finally:
        _release(client, held)


def _acquire(client: MLflowClient, name: str, lease: float, wait: float) -> Lease:
    owner, deadline, failures = uuid.uuid4().hex, time.monotonic() + wait, 0
    while True:
        try:
            if held := _attempt(client, Lease(name, owner, time.time() + lease)):
                return held
            failures = 0
        except PlatformUnavailableError:  # whatever was done by then, our name on the lock tells
            failures += 1
            if failures == FAILURES:
                raise
        if time.monotonic() > deadline:
            raise ConflictError(f"The lock {name!r} was held by somebody else for {wait:.0f} s. Try again.")
        time.sleep(random.uniform(0.05, 0.25))  # noqa: S311 - spreads contenders


def _attempt(client: MLflowClient, wanted: Lease) -> Lease | None:
    """Return the lock if it is ours now, burying a stale one first."""
    for _ in range(2):
        with suppress(ConflictError):
            client.create_model(wanted.name, {"owner": wanted.owner, "expires": repr(wanted.expires)})
            return wanted
        standing = _standing(client, wanted.name)
        if standing and standing.owner == wanted.owner:  # an earlier attempt made it, and the answer was lost
            return standing
        if standing and standing.expires > time.time():
            return None
        if standing:
            with suppress(NotFoundError, ConflictError):  # another was faster
                client.rename_model(standing.name, f"{standing.name}.stale.{standing.owner}")
    return None


def _standing(client: MLflowClient, name: str) -> Lease | None:
    """Return the lock that stands now, whoever holds it."""
    try:
        tags = {tag["key"]: tag["value"] for tag in client.model(name).get("tags", ())}
    except NotFoundError:
        return None
    return Lease(name, tags.get("owner", ""), float(tags.get("expires", "inf")))


def _release(client: MLflowClient, held: Lease) -> None:
    """Delete the lock, unless its lease is over and it may be somebody else's by now."""
    if time.time() < held.expires - 1:
        _delete_own(client, held)
    with suppress(MlopsError):  # clearing up is no reason to fail what was done under the lock
        _clear_tombstones(client, held.name)


def _delete_own(client: MLflowClient, held: Lease) -> None:
    """Delete the lock. Before it is tried again, look whose it is: the first time may have gone through."""
    for failures in range(1, FAILURES + 1):
        try:
            client.delete_model(held.name, repeat=False)
            return
        except PlatformUnavailableError:
            standing = _standing(client, held.name)
            if standing is None or standing.owner != held.owner:
                return
            if failures == FAILURES:
                raise


def _clear_tombstones(client: MLflowClient, name: str) -> None:
    """Delete stale locks that nobody can still be about to rename a lock onto."""
    for found in client.models(f"name LIKE '{name}.stale.%'", limit=10):
        if time.time() - int(found["creation_timestamp"]) / 1000 > TOMBSTONE_SECONDS:
            client.delete_model(found["name"])
