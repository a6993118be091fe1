"""What Airflow learns about the page, in every process it runs."""

from __future__ import annotations

import importlib.metadata
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN_FILE = Path(__file__).parents[2] / "plugins" / "mlops_ui.py"


def test_the_plugin_is_light():
    """Every task process imports the plugin, so it brings neither FastAPI nor the page nor a platform with it."""
    heavy = ("fastapi", "starlette", "mlflow", "pandas", "numpy", "airflow_mlops.ui.api", "airflow_mlops.hooks")
    program = (
        "import sys, airflow.sdk.plugins_manager; before = set(sys.modules); import airflow_mlops.ui.plugin;"
        f"print([m for m in set(sys.modules) - before if m.startswith({heavy!r})])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_the_installed_plugin_is_offered_once():
    """The file in ``plugins/`` keeps quiet beside an installed wheel: one plugin from two places is an error."""
    found = importlib.metadata.entry_points(group="airflow.plugins")["mlops_ui"]

    assert found.load().name == "mlops_ui"
    assert "MlopsUiPlugin" not in runpy.run_path(str(PLUGIN_FILE))


def test_the_file_offers_the_plugin_where_no_wheel_is_installed(monkeypatch: pytest.MonkeyPatch):
    """A folder that is mounted into an installation gives the same page."""
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: importlib.metadata.EntryPoints())

    assert runpy.run_path(str(PLUGIN_FILE))["MlopsUiPlugin"].name == "mlops_ui"
