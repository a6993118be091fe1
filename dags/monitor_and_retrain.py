"""Look at the traffic an endpoint answered and say whether it has drifted from what its model learned.

On drift the newly labelled data is published as a new data version, which starts `train_and_deploy`. Without drift, or
without enough traffic, nothing follows.
"""

import json
from pathlib import Path

from airflow.sdk import DAG, Asset, Param

from airflow_mlops.operators.data import DvcSnapshotOperator
from airflow_mlops.operators.drift import DetectDriftOperator

for file in sorted((Path(__file__).parent / "projects").glob("*.json")):
    project = json.loads(file.read_text())
    with DAG(
        dag_id=f"{file.stem}_monitor_and_retrain",
        schedule=project.get("monitor_schedule"),
        catchup=False,
        max_active_runs=1,
        tags=["mlops", file.stem],
        doc_md=__doc__,
        params={
            "since": Param(
                None,
                type=["null", "string"],
                title="From",
                description="ISO time or seconds since 1970. Empty: a day before the run.",
            ),
            "min_rows": Param(500, type="integer", minimum=1, title="Fewest rows for a verdict"),
            "source": Param(project["landing"], type="string", title="Newly labelled data"),
            "tag": Param(None, type=["null", "string"], title="Tag of the new data version"),
            "mlflow_conn_id": Param("mlflow_default", type="string", title="MLflow connection"),
            "dvc_conn_id": Param("dvc_default", type="string", title="DVC connection"),
        },
    ) as dag:
        dag.params.update(project.get("monitor_defaults", {}))
        p = dag.param
        detect = DetectDriftOperator(
            task_id="detect_drift",
            current={"capture_dir": project["capture_dir"], "endpoint": project["endpoint"]},
            model_name=project["model_name"],
            since="{{ params.since or (dag_run.run_after - macros.timedelta(days=1)).isoformat() }}",
            min_rows=p("min_rows"),
            mlflow_conn_id=p("mlflow_conn_id"),
            without_drift="skip_downstream",
            retrain_asset=Asset(f"{project['data_asset']}/drift"),
        )
        publish = DvcSnapshotOperator(
            task_id="publish_labelled_data",
            source="{{ params.source }}",
            path=project["data_path"],
            tag="{{ params.tag or '' }}",
            message="Retraining asked for by drift",
            dvc_conn_id="{{ params.dvc_conn_id }}",
            outlets=[Asset(project["data_asset"])],
        )
        detect >> publish
