"""What Airflow learns about the package agrees with the package."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest

from airflow_mlops.core.residency import EXTRA
from airflow_mlops.deployment.targets.local import EXTRAS as GATEWAY_EXTRAS
from airflow_mlops.hooks.dvc import EXTRAS as DVC_EXTRAS
from airflow_mlops.platforms.kfp_rest import OPTIONS as KFP_EXTRAS
from airflow_mlops.platforms.kubernetes_access import OPTIONS as KUBERNETES_EXTRAS
from airflow_mlops.platforms.kubernetes_access import SHARED
from airflow_mlops.platforms.mlflow_rest import OPTIONS as MLFLOW_EXTRAS
from airflow_mlops.provider_info import get_provider_info
from airflow_mlops.training.backends.local import OPTIONS as LOCAL_EXTRAS

CONNECTIONS = {connection["connection-type"]: connection for connection in get_provider_info()["connection-types"]}


def load(path: str) -> Any:
    """Import a class by its dotted path."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def test_airflow_accepts_the_description() -> None:
    """The description is valid by Airflow's own schema for installed providers."""
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_connection_forms_are_valid() -> None:
    """The connection forms are valid by Airflow's schema for provider files, which knows every field of a form."""
    schema = json.loads((Path(airflow.__file__).parent / "provider.yaml.schema.json").read_text())
    jsonschema.validate(list(CONNECTIONS.values()), schema["properties"]["connection-types"])


@pytest.mark.parametrize("conn_type", CONNECTIONS)
def test_every_connection_type_has_its_hook(conn_type: str) -> None:
    """The hook of a connection type exists and says the same of itself."""
    hook = load(CONNECTIONS[conn_type]["hook-class-name"])
    assert (hook.conn_type, hook.hook_name) == (conn_type, CONNECTIONS[conn_type]["hook-name"])


@pytest.mark.parametrize(
    ("conn_type", "extras"),
    [
        ("dvc", DVC_EXTRAS),
        ("mlflow", MLFLOW_EXTRAS),
        ("mlops_gateway", GATEWAY_EXTRAS),
        ("mlops_local", (*LOCAL_EXTRAS, EXTRA)),
        ("mlops_kubernetes", (*KUBERNETES_EXTRAS, *SHARED, EXTRA)),
        ("kubeflow_pipelines", (*KFP_EXTRAS, EXTRA)),
    ],
)
def test_the_form_shows_what_the_code_reads(conn_type: str, extras: tuple[str, ...]) -> None:
    """The fields of a connection's form are exactly the extras that the code accepts."""
    assert set(CONNECTIONS[conn_type]["conn-fields"]) == set(extras)


def test_every_link_can_be_loaded() -> None:
    """The links exist."""
    assert all(load(path)().name for path in get_provider_info()["extra-links"])
