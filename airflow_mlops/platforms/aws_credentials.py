"""Who a connection is to AWS: the fields of Airflow's own ``aws`` connection, read as the official provider reads them.

It must never turn off TLS verification or put a credential into a message.

https://airflow.apache.org/docs/apache-airflow-providers-amazon/stable/connections/aws.html
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import InvalidSpecError

OPTIONS = (
    "region_name",
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
    "profile_name",
    "role_arn",
    "assume_role_method",
    "assume_role_kwargs",
    "assume_role_with_web_identity_federation",
    "assume_role_with_web_identity_token_file",
    "endpoint_url",
    "service_config",
    "config_kwargs",
    "session_kwargs",
    "verify",
)
"""Extras of the official connection that count here, too."""

TOLERATED = ("test_endpoint_url",)
"""An extra of it that has no meaning here."""

KEYS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")


def read_extras(info: ConnectionInfo, further: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the extras of a connection, all of which must be known or in *further*.

    :raises InvalidSpecError: one is unknown, or asks for TLS without verification
    """
    found = info.options((*OPTIONS, *further, *TOLERATED))
    if found.get("verify") is False or str(found.get("verify")).lower() == "false":
        raise InvalidSpecError(
            f"Connection {info.conn_id!r} sets 'verify' to false: anybody could then answer for AWS. "
            "Give the path of the authority's certificate instead."
        )
    return found


def signing_session(info: ConnectionInfo, extras: Mapping[str, Any]) -> Any:
    """Return a ``botocore`` session that signs as the connection says.

    :raises InvalidSpecError: the profile is unknown, or the way to a role is one we do not know
    """
    older = extras.get("session_kwargs") or {}
    profile = extras.get("profile_name") or older.get("profile_name")
    session = importlib.import_module("botocore.session").Session(profile=profile or None)
    if region := extras.get("region_name") or older.get("region_name"):
        session.set_config_variable("region", region)
    key, secret, token = _keys(info, extras, older)
    if key and secret:
        session.set_credentials(key, secret, token)
    if role := extras.get("role_arn"):
        session._credentials = _assumed(session, str(role), info.conn_id, extras)
    return session


def _keys(info: ConnectionInfo, extras: Mapping[str, Any], older: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """Return access key, secret key and session token, from the first place that has them."""
    places = ({KEYS[0]: info.login, KEYS[1]: info.password}, extras, older)
    found = next((place for place in places if place.get(KEYS[0]) and place.get(KEYS[1])), {})
    token = extras.get(KEYS[2]) or older.get(KEYS[2]) or None
    return str(found.get(KEYS[0], "")), str(found.get(KEYS[1], "")), token


def _assumed(session: Any, role: str, conn_id: str, extras: Mapping[str, Any]) -> Any:
    """Return credentials of a role, which renew themselves."""
    method = str(extras.get("assume_role_method") or "assume_role")
    credentials = importlib.import_module("botocore.credentials")
    client, further = _token_service(session, extras), dict(extras.get("assume_role_kwargs") or {})
    further.setdefault("RoleSessionName", "airflow-mlops")
    if method == "assume_role":
        source = session.get_credentials()
        if source is None:
            raise InvalidSpecError(f"Connection {conn_id!r} has no credentials that could assume {role!r}.")
        fetcher = credentials.AssumeRoleCredentialFetcher(client, source, role, extra_args=further)
    elif method == "assume_role_with_web_identity" and (file := _token_file(extras)):
        loader = credentials.FileWebIdentityTokenLoader(file)
        fetcher = credentials.AssumeRoleWithWebIdentityCredentialFetcher(client, loader, role, extra_args=further)
    else:
        raise InvalidSpecError(
            f"Connection {conn_id!r}: assume_role_method {method!r} is not known here. Use 'assume_role', or "
            "'assume_role_with_web_identity' with 'assume_role_with_web_identity_token_file'."
        )
    return credentials.DeferredRefreshableCredentials(fetcher.fetch_credentials, method)


def _token_file(extras: Mapping[str, Any]) -> str:
    is_file = extras.get("assume_role_with_web_identity_federation", "file") == "file"
    return str(extras.get("assume_role_with_web_identity_token_file") or "") if is_file else ""


def _token_service(session: Any, extras: Mapping[str, Any]) -> Any:
    """Return what makes a client of the token service, at its own address and never at ``endpoint_url``."""
    own = ((extras.get("service_config") or {}).get("sts") or {}).get("endpoint_url")

    def client(service: str, **kwargs: Any) -> Any:
        return session.create_client(service, **kwargs, **({"endpoint_url": own} if own else {}))

    return client
