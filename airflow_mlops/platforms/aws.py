"""From an Airflow ``aws`` connection to clients of AWS services, whose answers are turned into our errors.

The credentials are found as the official provider and the SDK find them; a role that is assumed is renewed before it
expires. It must never turn off TLS verification, and no message may hold a credential.

https://airflow.apache.org/docs/apache-airflow-providers-amazon/stable/connections/aws.html
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.core.extras import extra
from airflow_mlops.platforms.aws_answers import refusal
from airflow_mlops.platforms.aws_credentials import read_extras, signing_session

Json = dict[str, Any]

CONNECT_SECONDS, READ_SECONDS = 5, 30
ATTEMPTS = 4
"""How often one request is sent at most; the SDK decides which answers are worth another attempt."""


class Aws:
    """What a connection may do in one account. Nothing is asked before the first call.

    :param info: login and password are an access key; extras are those of the official connection, and *further*
    :param further: extras of whoever uses it
    :ivar further: the values of those that are set
    :raises InvalidSpecError: an extra is unknown, or asks for TLS without verification
    """

    def __init__(self, info: ConnectionInfo, further: tuple[str, ...] = ()) -> None:
        self.conn_id, self._info = info.conn_id, info
        self._extras = read_extras(info, further)
        self.further = {key: self._extras[key] for key in further if self._extras.get(key)}
        self._clients: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()

    @cached_property
    def region(self) -> str:
        """Return the region of the connection, or the one that the SDK finds.

        :raises InvalidSpecError: there is none
        """
        found = self._session.get_config_variable("region")
        if not found:
            raise InvalidSpecError(
                f"Connection {self.conn_id!r} has no region. Set its extra 'region_name', such as 'eu-west-1'."
            )
        return str(found)

    def call(self, service: str, operation: str, /, region: str = "", **request: Any) -> Json:
        """Send one request and return the answer.

        :param operation: such as ``describe_training_job``
        :param region: where, if not in the connection's own region
        :raises NotFoundError: what was asked for does not exist
        :raises ConflictError: what was to be made exists, or changed meanwhile
        :raises QuotaExceededError: the account may not use that much
        :raises InvalidSpecError: refused, or a right is missing
        :raises PlatformUnavailableError: no answer, too many requests, or a fault of the service
        """
        errors = importlib.import_module("botocore.exceptions")
        try:
            answer: Json = getattr(self._client(service, region or self.region), operation)(**request)
        except (errors.BotoCoreError, errors.ClientError) as error:
            raise refusal(error, f"{service} {operation}", self.conn_id) from error
        return answer

    def pages(
        self, service: str, operation: str, key: str, /, region: str = "", **request: Any
    ) -> Iterator[list[Json]]:
        """Yield the items under *key*, a page at a time; leave the loop when that is enough."""
        token: Json = {}
        while True:
            answer = self.call(service, operation, region=region, **request, **token)
            yield answer.get(key) or []
            if not answer.get("NextToken"):
                return
            token = {"NextToken": answer["NextToken"]}

    def _client(self, service: str, region: str) -> Any:
        with self._lock:
            if (service, region) not in self._clients:
                self._clients[service, region] = self._session.create_client(
                    service, region_name=region, config=self._config, **self._place(service)
                )
            return self._clients[service, region]

    def _place(self, service: str) -> Json:
        """Return where a service is, if not where the SDK knows it to be."""
        own: Mapping[str, Any] = (self._extras.get("service_config") or {}).get(service) or {}
        found = {"endpoint_url": own.get("endpoint_url") or self._extras.get("endpoint_url")}
        found["verify"] = self._extras.get("verify") if isinstance(self._extras.get("verify"), str) else None
        return {key: value for key, value in found.items() if value}

    @cached_property
    def _config(self) -> Any:
        """Return the SDK's settings: ours, and on top of them those of the connection."""
        make = importlib.import_module("botocore.config").Config
        own = make(
            retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            user_agent_extra="airflow-mlops",
            tcp_keepalive=True,
        )
        try:
            return own.merge(make(**(self._extras.get("config_kwargs") or {})))
        except TypeError as error:
            raise InvalidSpecError(f"Connection {self.conn_id!r}: 'config_kwargs' cannot be used: {error}.") from error

    @cached_property
    def _session(self) -> Any:
        with extra("sagemaker"):
            importlib.import_module("botocore.session")
        return signing_session(self._info, self._extras)
