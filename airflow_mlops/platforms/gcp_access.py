"""Who we are on Google Cloud: the extras of Airflow's own Google Cloud connection, turned into credentials.

No message may show a key: what a broken one does to its parser is told by the name of the error alone.

https://airflow.apache.org/docs/apache-airflow-providers-google/stable/connections/gcp.html
"""

from __future__ import annotations

import base64
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import InvalidSpecError, MlopsError
from airflow_mlops.core.extras import extra

SOURCES = ("key_path", "keyfile_dict", "key_secret_name", "credential_config_file", "is_anonymous")
"""Extras that say where the credentials are; at most one of them. Without any: Application Default Credentials."""

OFFICIAL = (*SOURCES, "key_secret_project_id", "project", "scope", "impersonation_chain", "quota_project_id")
"""Extras of Airflow's own connection that are honoured."""

OWN = ("region", "staging_bucket", "service_account", "network", "endpoints")
"""Our own extras."""

TOLERATED = ("num_retries",)
"""An extra that the official form writes and that changes nothing here: how often we ask again is our own rule."""

REFUSED = ("idp_issuer_url", "client_id", "client_secret", "idp_extra_parameters", "idp_extra_params")
"""Extras of the client credentials grant, which is the official provider's own code. They are refused when set."""

ENDPOINTS = {
    "aiplatform": "https://{region}-aiplatform.googleapis.com",
    "storage": "https://storage.googleapis.com",
    "logging": "https://logging.googleapis.com",
}
"""Where the services are. The connection's extra ``endpoints`` may say otherwise, by the same names."""

OLD_PREFIX = "extra__google_cloud_platform__"
"""How the official form named its extras before Airflow 2.3."""

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
SECRETS = "https://secretmanager.googleapis.com/v1"
TIMEOUT = 30.0


def read_extras(info: ConnectionInfo) -> dict[str, Any]:
    """Return the extras of a connection that are set.

    :raises InvalidSpecError: one is unknown or cannot be honoured, or there are two sources of credentials
    """
    extras = {key.removeprefix(OLD_PREFIX): value for key, value in info.extra.items()}
    known = ConnectionInfo(info.conn_id, extra=extras).options((*OFFICIAL, *OWN, *TOLERATED, *REFUSED))
    found = {key: value for key, value in known.items() if value not in ("", None, False, "false", "False")}
    for key in REFUSED:
        if key in found:
            raise InvalidSpecError(
                f"Connection {info.conn_id!r} sets {key!r}, which is not honoured here. Use credential_config_file "
                "with a workload identity federation instead."
            )
    given = [key for key in SOURCES if key in found]
    if len(given) > 1:
        raise InvalidSpecError(f"Connection {info.conn_id!r} sets {' and '.join(given)}: give only one of them.")
    _check_endpoints(info.conn_id, found)
    return found


def _check_endpoints(conn_id: str, extras: Mapping[str, Any]) -> None:
    """Refuse addresses that would get our token and are not Google's own."""
    endpoints = extras.get("endpoints") or {}
    if not isinstance(endpoints, Mapping) or set(endpoints) - set(ENDPOINTS):
        raise InvalidSpecError(
            f"The extra 'endpoints' of connection {conn_id!r} must be a mapping with some of {', '.join(ENDPOINTS)}."
        )
    for service, address in endpoints.items():
        parts = urlsplit(str(address))
        is_google = parts.scheme == "https" and str(parts.hostname).endswith(".googleapis.com")
        if not is_google and not extras.get("is_anonymous"):
            raise InvalidSpecError(
                f"The endpoint of {service!r} in connection {conn_id!r} is not below https://googleapis.com: it would "
                "get the account's token. Only a connection with is_anonymous may use another one."
            )


def credentials(conn_id: str, extras: Mapping[str, Any]) -> tuple[Any, str]:
    """Return google-auth credentials and the project they belong to, which may be empty.

    :raises InvalidSpecError: the extras lead to no credentials
    """
    with extra("vertex"):
        importlib.import_module("google.auth")
    try:
        found, project = _source(extras)
        return _impersonated(found, extras), project
    except MlopsError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a broken key does to its parser; the text may hold the key
        source = next((key for key in SOURCES if key in extras), "Application Default Credentials")
        raise InvalidSpecError(
            f"Connection {conn_id!r} leads to no Google credentials ({source}: {type(error).__name__}). Set one of the "
            f"extras {', '.join(SOURCES[:-1])}, or give the worker Application Default Credentials."
        ) from None


def _source(extras: Mapping[str, Any]) -> tuple[Any, str]:
    scopes, quota = _words(extras.get("scope")) or [SCOPE], extras.get("quota_project_id")
    if extras.get("is_anonymous"):
        return importlib.import_module("google.auth.credentials").AnonymousCredentials(), ""
    if config := extras.get("credential_config_file"):
        return _federated(_content(config), scopes), ""
    if key := _key(extras):
        account = importlib.import_module("google.oauth2.service_account").Credentials
        found, project = account.from_service_account_info(key, scopes=scopes), key.get("project_id")
        found = found.with_quota_project(quota) if quota else found
    else:
        found, project = importlib.import_module("google.auth").default(scopes=scopes, quota_project_id=quota)
    return found, str(project or "")


def _key(extras: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the key of a service account, wherever it is."""
    if given := extras.get("keyfile_dict") or extras.get("key_path"):
        return _content(given)
    if name := extras.get("key_secret_name"):
        return _key_in_secret(str(name), str(extras.get("key_secret_project_id") or ""))
    return None


def _federated(config: dict[str, Any], scopes: list[str]) -> Any:
    """Return credentials of a workload identity. A configuration that starts a program is refused.

    https://cloud.google.com/iam/docs/workload-identity-federation
    """
    source = config.get("credential_source") or {}
    if config.get("type") != "external_account" or "executable" in source:
        raise InvalidSpecError(
            f"The credential configuration is of the type {config.get('type')!r}, with {sorted(source)!r}. Only an "
            "'external_account' that reads a file, an address or AWS is taken."
        )
    module = "google.auth.aws" if "environment_id" in source else "google.auth.identity_pool"
    return importlib.import_module(module).Credentials.from_info(config, scopes=scopes)


def _content(given: Any) -> dict[str, Any]:
    """Return the JSON that is given: as a mapping, as text, or in the file of that path."""
    if isinstance(given, Mapping):
        return dict(given)
    text = given if str(given).lstrip().startswith("{") else Path(given).read_text()
    found: dict[str, Any] = json.loads(text)
    return found


def _key_in_secret(name: str, project: str) -> dict[str, Any]:
    """Read a service account's key from Secret Manager with the worker's own Application Default Credentials."""
    own, own_project = importlib.import_module("google.auth").default(scopes=[SCOPE])
    session = importlib.import_module("google.auth.transport.requests").AuthorizedSession(own)
    answer = session.get(
        f"{SECRETS}/projects/{project or own_project}/secrets/{name}/versions/latest:access", timeout=TIMEOUT
    )
    answer.raise_for_status()
    found: dict[str, Any] = json.loads(base64.b64decode(answer.json()["payload"]["data"]))
    return found


def _impersonated(source: Any, extras: Mapping[str, Any]) -> Any:
    """Return credentials of the last account of ``impersonation_chain``, to which the others lead one by one."""
    chain = _words(extras.get("impersonation_chain"))
    if not chain:
        return source
    impersonation = importlib.import_module("google.auth.impersonated_credentials")
    scopes = _words(extras.get("scope")) or [SCOPE]
    return impersonation.Credentials(source, chain[-1], target_scopes=scopes, delegates=chain[:-1])


def _words(value: Any) -> list[str]:
    given = value.split(",") if isinstance(value, str) else value or []
    return [str(word).strip() for word in given if str(word).strip()]
