"""From an Airflow connection of the type ``azure`` to tokens for Azure's APIs.

Fields and extras are those of Airflow's own connection, so that an existing one works as it is. No secret and no token
may get into a message or a representation.

Vendor pages: https://airflow.apache.org/docs/apache-airflow-providers-microsoft-azure/stable/connections/azure.html
and https://learn.microsoft.com/python/api/overview/azure/identity-readme
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import InvalidSpecError, PlatformUnavailableError, close_match, redact
from airflow_mlops.core.extras import extra

OFFICIAL = (
    "tenantId",
    "subscriptionId",
    "key_path",
    "key_json",
    "managed_identity_client_id",
    "workload_identity_tenant_id",
    "use_azure_identity_object",
    "cloud_environment",
)
"""Extras of Airflow's own connection. ``use_azure_identity_object`` changes nothing here: it is always used."""

OWN = ("resource_group", "workspace", "compute", "spot_compute", "endpoint", "authority", "verify", "timeout")
"""Further extras: where the workspace is, its default compute, and for other clouds and tests how Azure is reached."""

TALKATIVE = ("azure.identity", "azure.core.pipeline.policies.http_logging_policy")
"""Loggers that write several lines a request into the log of whoever asks; their warnings are kept."""


@dataclass(frozen=True)
class Cloud:
    """Where one of Azure's clouds is. Addresses have no slash at their end.

    :param arm: Azure Resource Manager, whose tokens are for its own address
    :param authority: who gives tokens
    :param studio: pages of Azure Machine Learning, for which the tokens of its data plane are
    :param vault: last part of the names of key vaults
    :param data: last part of the names of the data planes of its workspaces
    """

    arm: str
    authority: str
    studio: str
    vault: str
    data: str


CLOUDS = {
    "AzurePublicCloud": Cloud(
        "https://management.azure.com",
        "https://login.microsoftonline.com",
        "https://ml.azure.com",
        "vault.azure.net",
        ".api.azureml.ms",
    ),
    "AzureUSGovernment": Cloud(
        "https://management.usgovcloudapi.net",
        "https://login.microsoftonline.us",
        "https://ml.azure.us",
        "vault.usgovcloudapi.net",
        ".api.ml.azure.us",
    ),
    "AzureChinaCloud": Cloud(
        "https://management.chinacloudapi.cn",
        "https://login.chinacloudapi.cn",
        "https://ml.azure.cn",
        "vault.azure.cn",
        ".api.ml.azure.cn",
    ),
}
"""https://learn.microsoft.com/azure/azure-government/compare-azure-government-global-azure#guidance-for-developers"""


def cloud_of(options: Mapping[str, Any]) -> Cloud:
    """Return the cloud of a connection.

    :raises InvalidSpecError: there is no such cloud
    """
    name = str(options.get("cloud_environment") or "AzurePublicCloud")
    if name not in CLOUDS:
        raise InvalidSpecError(
            f"cloud_environment is {name!r}: {close_match(name, CLOUDS)}Azure has {', '.join(CLOUDS)}."
        )
    return CLOUDS[name]


@dataclass(frozen=True, repr=False)
class Identity:
    """Who asks: a service principal when it has all three, else whoever this machine is to Azure."""

    client_id: str = ""
    secret: str = ""
    tenant: str = ""
    subscription: str = ""

    @classmethod
    def of(cls, info: ConnectionInfo, options: Mapping[str, Any]) -> Identity:
        """Read the fields of a connection, or its key file.

        :raises InvalidSpecError: the key file cannot be read, or a part of a service principal is missing
        """
        key = _key(info, options)
        found = cls(
            info.login or str(key.get("clientId", "")),
            info.password or str(key.get("clientSecret", "")),
            str(options.get("tenantId") or key.get("tenantId", "")),
            str(options.get("subscriptionId") or key.get("subscriptionId", "")),
        )
        if found.secret and not (found.client_id and found.tenant):
            raise InvalidSpecError(
                f"Connection {info.conn_id!r} has a secret without {'a tenantId' if found.client_id else 'a login'}. "
                "A service principal is login (client id), password (secret) and the extra tenantId."
            )
        return found


def _key(info: ConnectionInfo, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the key file that ``key_json`` holds or ``key_path`` names."""
    found: Any = options.get("key_json") or {}
    path = str(options.get("key_path") or "")
    try:
        text = Path(path).read_text() if path else found
        found = json.loads(text) if isinstance(text, str) else text
    except OSError as error:
        raise InvalidSpecError(f"The key file {path!r} cannot be read: {error.strerror}.") from error
    except ValueError:
        found = None
    if not isinstance(found, Mapping):
        raise InvalidSpecError(f"The key of connection {info.conn_id!r} is not a JSON object.")
    return found


class AzureTokens:
    """Tokens for one connection. Azure's own library keeps each until shortly before its end."""

    def __init__(self, info: ConnectionInfo, options: Mapping[str, Any]) -> None:
        self._identity = Identity.of(info, options)
        self._conn_id, self._options = info.conn_id, options
        self._authority = str(options.get("authority") or cloud_of(options).authority)
        self._credential: Any = None

    @property
    def tenant(self) -> str:
        """The tenant, where the connection names it."""
        return self._identity.tenant

    @property
    def subscription(self) -> str:
        """The subscription that the connection names."""
        return self._identity.subscription

    def token(self, audience: str) -> str:
        """Return a bearer token for the API at *audience*.

        :raises InvalidSpecError: Azure refused who we are, or this machine is nobody to it
        :raises PlatformUnavailableError: who gives tokens did not answer
        """
        with extra("azureml"):
            from azure.core.exceptions import AzureError
        try:
            if self._credential is None:
                self._credential = self._make()
            return str(self._credential.get_token(f"{audience}/.default").token)
        except (AzureError, ValueError) as error:
            if not _may_pass(error):
                raise InvalidSpecError(self._refused(error)) from error
            raise PlatformUnavailableError(
                f"{redact(self._authority)} gave no token ({type(error).__name__}). Try again later."
            ) from error

    def _make(self) -> Any:
        from azure.identity import ClientSecretCredential, DefaultAzureCredential

        for talkative in TALKATIVE:
            logging.getLogger(talkative).setLevel(logging.WARNING)
        verify = self._options.get("verify", True)
        common: dict[str, Any] = {"authority": self._authority, "connection_verify": verify}
        if "authority" in self._options:
            common["disable_instance_discovery"] = True
        who = self._identity
        if who.secret:
            return ClientSecretCredential(who.tenant, who.client_id, who.secret, **common)
        managed = str(self._options.get("managed_identity_client_id") or who.client_id)
        workload = str(self._options.get("workload_identity_tenant_id") or "")
        own = {"managed_identity_client_id": managed} if managed else {}
        own |= {"workload_identity_tenant_id": workload} if workload else {}
        return DefaultAzureCredential(**own, **common)

    def _refused(self, error: Exception) -> str:
        """Return the first line of what Azure says: it names the cause and no secret; what follows is of no use."""
        told = redact(str(error)).splitlines()
        told = [line.replace(self._identity.secret, "***") if self._identity.secret else line for line in told]
        return (
            f"Azure gives no token to connection {self._conn_id!r}: {(told or [''])[0][:500]} "
            "Check login, password and tenantId, or the managed identity of this machine."
        )


def _may_pass(error: BaseException) -> bool:
    """Say whether who gives tokens was only away. Azure's library wraps what it did not expect; a refusal it says."""
    from azure.core.exceptions import HttpResponseError
    from azure.identity import CredentialUnavailableError

    status = error.status_code if isinstance(error, HttpResponseError) else None
    if isinstance(error, CredentialUnavailableError):
        return False
    wrapped = error.__cause__ is not None and not isinstance(error.__cause__, ValueError)
    return wrapped or (status is not None and (status == 429 or status >= 500))
