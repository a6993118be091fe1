"""What importing us costs: every task process imports the operators again, so they must stay light."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import airflow_mlops

HEAVY = ["mlflow", "dvc", "great_expectations", "pandas", "numpy", "pyarrow", "duckdb", "sklearn", "scipy", "boto3"]
HEAVY += ["google.cloud", "azure", "kubernetes", "optuna", "fastapi", "starlette", "uvicorn"]
SURFACE = ["decorators", "operators", "hooks", "triggers", "links"]
ROOT = Path(__file__).resolve().parents[2]


def surface_modules() -> list[str]:
    """Return every module a DAG file may import, and those Airflow imports by itself."""
    found = ["airflow_mlops.groups", "airflow_mlops.provider_info", "airflow_mlops.ui.plugin"]
    for kind in SURFACE:
        package = f"airflow_mlops.{kind}"
        paths = [str(Path(airflow_mlops.__path__[0]) / kind)]
        found += [package, *(f"{package}.{module.name}" for module in pkgutil.iter_modules(paths))]
    return found


def loaded_after(statement: str) -> set[str]:
    """Return the names of the modules a fresh Python has loaded after *statement*."""
    code = f"import json, sys; {statement}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def airflow_alone() -> set[str]:
    """Give what Airflow loads by itself: that is not ours to answer for."""
    return loaded_after("import airflow.sdk, airflow.triggers.base")


def test_no_operator_loads_a_heavy_library(airflow_alone: set[str]) -> None:
    """Importing every module a DAG may import loads none of the heavy libraries that Airflow does not load itself."""
    loaded = loaded_after("import " + ", ".join(surface_modules()))
    assert sorted(set(HEAVY) & (loaded - airflow_alone)) == []


@pytest.mark.parametrize("template", sorted((ROOT / "dags").glob("*.py")), ids=lambda path: path.stem)
def test_no_template_loads_a_heavy_library(template: Path, airflow_alone: set[str]) -> None:
    """Parsing a template DAG loads none of the heavy libraries."""
    loaded = loaded_after(f"import runpy; runpy.run_path({str(template)!r})")
    assert sorted(set(HEAVY) & (loaded - airflow_alone)) == []


def test_core_runs_on_the_standard_library() -> None:
    """Every core module can be imported with nothing but Python itself."""
    paths = [str(Path(airflow_mlops.__path__[0]) / "core")]
    names = [f"airflow_mlops.core.{module.name}" for module in pkgutil.iter_modules(paths)]
    before, after = loaded_after("pass"), loaded_after("import " + ", ".join(names))
    loaded = {name.partition(".")[0] for name in after - before}  # an installer's .pth files load what they like
    foreign = loaded - set(sys.stdlib_module_names) - {"airflow_mlops", "__main__", "__mp_main__", "sitecustomize"}
    assert not {name for name in foreign if not name.startswith(("_", "distutils"))}
