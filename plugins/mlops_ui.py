"""The MLOps page, for installations that mount this folder instead of installing the wheel.

An installed wheel already offers the page by its entry point. The same plugin from two places is an import error in
Airflow, so this file offers it only where the entry point is absent. The file must not be called ``airflow_mlops.py``:
Airflow would load it under that name, in place of the package.
"""

from importlib.metadata import entry_points

if "mlops_ui" not in entry_points(group="airflow.plugins").names:
    from airflow_mlops.ui.plugin import MlopsUiPlugin  # noqa: F401
