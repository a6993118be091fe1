"""Which cluster a connection leads to, and how to get in: the extras of Airflow's own Kubernetes connection.

It must never turn off TLS. The content of a kube config is never part of a message.

https://airflow.apache.org/docs/apache-airflow-providers-cncf-kubernetes/stable/connections/kubernetes.html
"""

from __future__ import annotations

import importlib
import json
import os
import socket
from collections.abc import Mapping
from typing import Any

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import InvalidSpecError, MlopsError
from airflow_mlops.core.extras import extra

OPTIONS = ("in_cluster", "kube_config_path", "kube_config", "cluster_context", "namespace", "console_url")
"""Extras of the connection. All but ``console_url`` are those of Airflow's own Kubernetes connection."""

TOLERATED = (
    "disable_tcp_keepalive",
    "disable_verify_ssl",
    "xcom_sidecar_container_image",
    "xcom_sidecar_container_resources",
    "xcom_sidecar_container_security_context",
)
"""Further extras that the form of that connection writes. ``disable_verify_ssl`` is refused when it is true."""

SHARED = ("fetch_image", "fetch_secret", "runtime", "runtime_kind")
"""Defaults of one backend's options. Several backends may share a connection, so each bears those of the others."""

OLD_PREFIX = "extra__kubernetes__"
"""How that form named its extras before Airflow 2.3."""


def read_extras(info: ConnectionInfo, further: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the extras of a connection, all of which must be known or in *further*.

    :raises InvalidSpecError: one is unknown, or asks for TLS without verification
    """
    extras = {key.removeprefix(OLD_PREFIX): value for key, value in info.extra.items()}
    found = ConnectionInfo(info.conn_id, extra=extras).options((*OPTIONS, *further, *SHARED, *TOLERATED))
    if _is_on(found.get("disable_verify_ssl")):
        raise InvalidSpecError(
            f"Connection {info.conn_id!r} sets 'disable_verify_ssl': without verification anybody could get the "
            "token. Put the cluster's authority into its kube config instead."
        )
    return found


def api_client(conn_id: str, extras: Mapping[str, Any]) -> Any:
    """Return a ``kubernetes.client.ApiClient`` of the cluster that *extras* lead to. Nothing is sent to it yet.

    :raises InvalidSpecError: they lead to none
    """
    with extra("kubernetes"):
        client, config = (importlib.import_module(f"kubernetes.{part}") for part in ("client", "config"))
    configuration = type.__call__(client.Configuration)  # not a copy of what others made the default
    try:
        _load(config, configuration, extras)
    except MlopsError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a broken file does to the loader; its text may hold a token
        raise InvalidSpecError(
            f"Connection {conn_id!r} leads to no cluster ({type(error).__name__}). Set one of the extras in_cluster, "
            "kube_config_path or kube_config, and a cluster_context that is in it."
        ) from None
    if not _is_on(extras.get("disable_tcp_keepalive")):
        configuration.socket_options = _keepalive()
    return client.ApiClient(configuration)


def _load(config: Any, configuration: Any, extras: Mapping[str, Any]) -> None:
    """Fill *configuration* from the one source that the extras name, or as ``kubectl`` would."""
    sources = [key for key in ("in_cluster", "kube_config_path", "kube_config") if _is_on(extras.get(key))]
    if len(sources) > 1:
        raise InvalidSpecError(f"The connection has {' and '.join(sources)}: give only one of them.")
    context = extras.get("cluster_context") or None
    if sources == ["in_cluster"] or (not sources and "KUBERNETES_SERVICE_HOST" in os.environ):
        config.load_incluster_config(client_configuration=configuration)
    elif sources == ["kube_config"]:
        given = extras["kube_config"]
        found = json.loads(given) if isinstance(given, str) else dict(given)
        config.load_kube_config_from_dict(found, context, configuration, persist_config=False)
    else:
        path = extras.get("kube_config_path") or None
        config.load_kube_config(path, context, configuration, persist_config=False)


def _keepalive() -> list[tuple[int, int, int]]:
    """Return socket options by which a connection whose other end vanished breaks after about a minute."""
    wanted = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
    fine = [(socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in wanted if hasattr(socket, name)]
    return [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *fine]


def _is_on(value: object) -> bool:
    return bool(value) and str(value).lower() not in ("false", "0")
