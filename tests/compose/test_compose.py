"""docker-compose.yaml, checked without an engine: its form, its variables, and what the code does with them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
AIRFLOW: dict[str, str] = COMPOSE["x-environment"]


def expanded(value: str) -> str:
    """Return *value* as Compose would, with a stand-in for every secret."""
    return re.sub(r"\$\{(\w+)[^}]*\}", r"\1-value", value)


def test_the_file_is_valid() -> None:
    """The file is valid by the schema of the Compose specification."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_airflow_setting_exists() -> None:
    """Each AIRFLOW__SECTION__OPTION is an option this Airflow knows: a typo would be ignored in silence."""
    from airflow.configuration import conf

    known = {
        (section.lower(), option.lower())
        for section in conf.get_sections_including_defaults()
        for option in conf.get_options_including_defaults(section)
    }
    settings = [name.split("__", 2)[1:] for name in AIRFLOW if name.startswith("AIRFLOW__")]
    assert settings
    assert [found for found in settings if (found[0].lower(), found[1].lower()) not in known] == []


@pytest.mark.parametrize("name", [name for name in AIRFLOW if name.startswith("AIRFLOW_CONN_")])
def test_every_connection_is_one_the_hooks_accept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection is valid JSON of a type we offer, and its hook takes all of its extras."""
    from airflow_mlops.hooks.deployment import DeploymentHook
    from airflow_mlops.hooks.dvc import DvcHook
    from airflow_mlops.hooks.mlflow import MLflowHook

    text = expanded(AIRFLOW[name])
    monkeypatch.setenv(name, text)
    conn_id = name.removeprefix("AIRFLOW_CONN_").lower()
    build = {
        "dvc": lambda: DvcHook(conn_id).get_store(),
        "mlflow": lambda: MLflowHook(conn_id).get_client(),
        "mlops_gateway": lambda: DeploymentHook("local", conn_id).get_target(),
    }
    assert build[json.loads(text)["conn_type"]]() is not None


def test_the_templates_find_their_connections() -> None:
    """Every default connection id of the templates is defined."""
    named = set(re.findall(r'"(\w+_default)"', "".join(path.read_text() for path in (ROOT / "dags").glob("*.py"))))
    defined = {name.removeprefix("AIRFLOW_CONN_").lower() for name in AIRFLOW if name.startswith("AIRFLOW_CONN_")}
    assert named <= defined


def test_every_variable_of_the_demo_is_read() -> None:
    """The demo's own variables are exactly those its code reads."""
    given = {name for name in COMPOSE["services"]["demo"]["environment"] if name.startswith("MLOPS_DEMO_")}
    read = set(re.findall(r'environ\["(MLOPS_DEMO_\w+)"\]', (ROOT / "docs/demo/compose.py").read_text()))
    assert given == read


def test_mlflow_variables_exist() -> None:
    """Each MLFLOW_ variable is one that the installed MLflow reads."""
    from mlflow import environment_variables

    given = {n for s in COMPOSE["services"].values() for n in s.get("environment", {}) if n.startswith("MLFLOW_")}
    known = {getattr(value, "name", "") for value in vars(environment_variables).values()}
    assert given - known - {"MLFLOW_DISABLE_TELEMETRY"} == set()


def test_the_server_commands_exist() -> None:
    """The options of the MLflow server and of the gateway are ones these programs have."""
    for service, program in (("mlflow", ["mlflow", "server"]), ("gateway", ["airflow_mlops.serving"])):
        shown = subprocess.run([sys.executable, "-m", *program, "--help"], capture_output=True, text=True, check=True)
        options = re.findall(r"(--[a-z-]+)=", " ".join(COMPOSE["services"][service]["command"]))
        assert [option for option in options if option not in shown.stdout] == []


def test_no_secret_has_a_default() -> None:
    """A forgotten secret is an error, none has a known default, and one command makes all of them."""
    named = set(re.findall(r"\$\{(\w+):\?", FILE.read_text()))
    made = set(re.findall(r'^    "(\w+)":', (ROOT / "docs/demo/secrets_file.py").read_text(), re.MULTILINE))
    assert named | {"AIRFLOW_PASSWORDS_JSON"} == made
    assert re.findall(r"\$\{(?!MONTHS)\w+:-", FILE.read_text()) == []


def test_ports_are_published_on_this_machine_only() -> None:
    """No service listens to the network."""
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []
