"""How the ``champion`` alias moves: compare-and-set under a lock, with the way back prepared first.

A crash at any point leaves the old champion or the new one, never none, and trying again finishes the move.
"""

from __future__ import annotations

from airflow_mlops.core.errors import ConflictError, NotFoundError
from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.registry.contract import CHAMPION, PREVIOUS
from airflow_mlops.registry.lock import alias_lock


def version_of(client: MLflowClient, name: str, alias: str) -> str | None:
    """Return the version an alias points to, or ``None`` when the model has no such alias.

    :raises NotFoundError: there is no such model
    """
    aliases = {entry["alias"]: str(entry["version"]) for entry in client.model(name).get("aliases", ())}
    return aliases.get(alias)


def move_champion(client: MLflowClient, name: str, *, expected: str | None, to: str) -> None:
    """Point ``champion`` to *to* if it points to *expected* now. ``previous`` is set to *expected* before.

    :raises ConflictError: the champion is neither *expected* nor *to*
    :raises NotFoundError: there is no version *to*
    """
    client.version(name, to)
    with alias_lock(client, name, CHAMPION) as lease:
        champion = version_of(client, name, CHAMPION)
        if champion == to:
            return
        if champion != expected:
            raise ConflictError(
                f"The champion of {name!r} is version {champion or 'none'}, not {expected or 'none'}: somebody else "
                "promoted meanwhile. Evaluate again against the champion of now."
            )
        if expected is not None:
            client.set_alias(name, PREVIOUS, expected)
        lease.check()
        client.set_alias(name, CHAMPION, to)
        _read_back(client, name, to)


def restore_previous(client: MLflowClient, name: str, *, expected: str | None = None) -> tuple[str, str]:
    """Point ``champion`` to ``previous`` and return the versions it left and it points to now. ``previous`` stays.

    :raises ConflictError: the champion is neither *expected* nor ``previous``
    :raises NotFoundError: nothing was promoted over another version yet
    """
    with alias_lock(client, name, CHAMPION) as lease:
        champion, previous = version_of(client, name, CHAMPION), version_of(client, name, PREVIOUS)
        if previous is None:
            raise NotFoundError(
                f"Model {name!r} has no {PREVIOUS!r} version to go back to. Promote a version by number instead."
            )
        if expected is not None and champion not in (expected, previous):
            raise ConflictError(
                f"The champion of {name!r} is version {champion or 'none'}, not {expected}: somebody else promoted "
                "meanwhile. Nothing was taken back."
            )
        if champion != previous:
            lease.check()
            client.set_alias(name, CHAMPION, previous)
            _read_back(client, name, previous)
        return champion or "", previous


def _read_back(client: MLflowClient, name: str, wanted: str) -> None:
    found = version_of(client, name, CHAMPION)
    if found != wanted:
        raise ConflictError(f"The champion of {name!r} was set to {wanted} and reads {found}: somebody wrote past us.")
