"""Who gives tokens, and what they open: Microsoft Entra for clients, the identity of a job, a key vault.

Tokens are for one audience each, as Azure's are: one for Azure Resource Manager does not open the data plane.
"""

from __future__ import annotations

import secrets
import threading
import time
import urllib.parse
from collections.abc import Mapping

from airflow_mlops.testing.azureml.problems import Json, Problem

TENANT = "11111111-2222-3333-4444-555555555555"
CLIENT = "66666666-7777-8888-9999-000000000000"
VAULT = "https://vault.azure.net"


class Identities:
    """Everybody that is known: one service principal, and the identity of jobs."""

    def __init__(self) -> None:
        self.secret = secrets.token_urlsafe(24)
        self.msi_secret = secrets.token_urlsafe(12)
        self.vault: dict[str, str] = {}
        self._lock = threading.Lock()
        self._audiences: dict[str, str] = {}
        self._ends: dict[str, float] = {}
        self.run_token_seconds = 3600.0

    def configuration(self, address: str) -> Json:
        """Return the description of who gives tokens.

        https://learn.microsoft.com/entra/identity-platform/v2-protocols-oidc
        """
        base = f"{address}/{TENANT}"
        return {
            "issuer": f"{base}/v2.0",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "token_endpoint": f"{base}/oauth2/v2.0/token",
        }

    def sign_in(self, raw: bytes) -> Json:
        """Answer a service principal.

        :raises Problem: it is not the one that is known
        """
        form = dict(urllib.parse.parse_qsl(raw.decode()))
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT, self.secret):
            raise Problem(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")
        return self.issue(form["scope"].split()[0].removesuffix("/.default"))

    def for_job(self, query: Mapping[str, str], headers: Mapping[str, str], *, is_user: bool) -> Json:
        """Answer a job that asks as the compute's identity, or as its user.

        :raises Problem: it does not know the compute's own secret
        """
        if not is_user and headers.get("secret") != self.msi_secret:
            raise Problem(401, "Unauthorized", "The secret of the managed identity endpoint is missing.")
        token = self.issue(query["resource"])
        return {**token, "resource": query["resource"], "expires_on": str(int(time.time()) + token["expires_in"])}

    def issue(self, audience: str) -> Json:
        """Return a new token for an audience."""
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._audiences[token] = audience
        return {"token_type": "Bearer", "expires_in": 3600, "access_token": token}

    def require(self, headers: Mapping[str, str], audience: str) -> None:
        """Refuse who has no token for *audience*.

        :raises Problem: 401
        """
        token = (headers.get("Authorization") or "").removeprefix("Bearer ")
        with self._lock:
            found = self._audiences.get(token)
        if found != audience:
            raise Problem(401, "InvalidAuthenticationToken", f"The access token is not for {audience}.")

    def issue_run(self, run: str) -> Json:
        """Return a new token for the tracking run of a job, which is no good for long."""
        found = self.issue(f"run/{run}")
        with self._lock:
            self._ends[found["access_token"]] = time.monotonic() + self.run_token_seconds
        return found

    def require_run(self, headers: Mapping[str, str], run: str) -> str:
        """Refuse who has no token for a tracking run that is still good; return the run. An empty *run* is any.

        :raises Problem: 401
        """
        token = (headers.get("Authorization") or "").removeprefix("Bearer ")
        with self._lock:
            audience, end = self._audiences.get(token, ""), self._ends.get(token, 0.0)
        known, _, found = audience.partition("/")
        if known != "run" or run not in ("", found) or time.monotonic() > end:
            raise Problem(
                401, "InvalidAuthenticationToken", f"The access token is not for the run {run!r}, or too old."
            )
        return found

    def read_secret(self, name: str, headers: Mapping[str, str]) -> Json:
        """Return a secret of the vault.

        :raises Problem: 401, or 404
        """
        self.require(headers, VAULT)
        if name not in self.vault:
            raise Problem(404, "SecretNotFound", f"A secret with name {name} was not found in this key vault.")
        return {"value": self.vault[name], "id": f"{VAULT}/secrets/{name}"}
