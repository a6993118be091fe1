"""What Airflow is told about this package: connection types, links and modules. Imported by every Airflow process."""

from __future__ import annotations

from typing import Any

from airflow_mlops import __version__


def _connection(conn_type: str, hook: str, labels: dict[str, str], placeholders: dict[str, str]) -> dict[str, Any]:
    return {
        "connection-type": conn_type,
        "hook-class-name": f"airflow_mlops.hooks.{hook}",
        "ui-field-behaviour": {"hidden-fields": [], "relabeling": labels, "placeholders": placeholders},
    }


def get_provider_info() -> dict[str, Any]:
    """Return the description Airflow reads through the ``apache_airflow_provider`` entry point."""
    return {
        "package-name": "airflow-mlops",
        "name": "MLOps",
        "description": "Building blocks that make Apache Airflow a complete MLOps platform.",
        "versions": [__version__],
        "connection-types": [],
    }
