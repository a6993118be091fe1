"""A connection as plain values, so that engines can be used with and without Airflow.

Only fields on a plugin's own list are read from ``extra``: a stray key could otherwise switch off TLS or change where
credentials are sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from airflow_mlops.core.errors import InvalidSpecError, close_match


@dataclass(frozen=True)
class ConnectionInfo:
    """Where a platform is and how to get in. Its representation never shows the password or the extras."""

    conn_id: str = ""
    host: str = ""
    port: int | None = None
    schema: str = ""
    login: str = ""
    password: str = field(default="", repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, connection: Any) -> Self:
        """Take the fields of an Airflow ``Connection``."""
        return cls(
            conn_id=connection.conn_id or "",
            host=connection.host or "",
            port=connection.port,
            schema=connection.schema or "",
            login=connection.login or "",
            password=connection.password or "",
            extra=dict(connection.extra_dejson),
        )

    def options(self, allowed: Iterable[str]) -> dict[str, Any]:
        """Return the extras, all of which must be in *allowed*.

        :raises InvalidSpecError: naming the first extra that is not known
        """
        known = list(allowed)
        for key in self.extra:
            if key not in known:
                raise InvalidSpecError(
                    f"Connection {self.conn_id!r} has an unknown extra {key!r}: {close_match(key, known)}"
                    f"Known extras: {', '.join(known) or 'none'}."
                )
        return dict(self.extra)

    def base_url(self, default_port: int | None = None) -> str:
        """Return ``scheme://host[:port]``. ``schema`` is http when empty.

        :raises InvalidSpecError: there is no host, or credentials are in it instead of in their own fields
        """
        if not self.host:
            raise InvalidSpecError(f"Connection {self.conn_id!r} has no host. Set the host of the server.")
        if "@" in self.host:
            raise InvalidSpecError(
                f"The host of connection {self.conn_id!r} holds credentials. Move them to its login and password."
            )
        if "://" in self.host:
            address = self.host.rstrip("/")
            return f"{address}:{self.port}" if self.port and address.count(":") == 1 else address
        port = self.port or default_port
        return f"{self.schema or 'http'}://{self.host}" + (f":{port}" if port else "")
