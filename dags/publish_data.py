"""Keep what has landed as a new data version. The version's asset event starts `train_and_deploy`."""

import json
from pathlib import Path

from airflow.sdk import DAG, Asset, Param

from airflow_mlops.operators.data import DvcSnapshotOperator

for file in sorted((Path(__file__).parent / "projects").glob("*.json")):
    project = json.loads(file.read_text())
    with DAG(
        dag_id=f"{file.stem}_publish_data",
        schedule=None,
        max_active_runs=1,
        tags=["mlops", file.stem],
        doc_md=__doc__,
        params={
            "source": Param(project["landing"], type="string", title="File or folder that has landed"),
            "tag": Param(
                None,
                type=["null", "string"],
                title="Tag",
                description="Name of the version. The same bytes under the same tag are the same version.",
            ),
            "message": Param("New data", type="string", title="Message"),
            "dvc_conn_id": Param("dvc_default", type="string", title="DVC connection"),
        },
    ) as dag:
        DvcSnapshotOperator(
            task_id="publish",
            source="{{ params.source }}",
            path=project["data_path"],
            tag="{{ params.tag or '' }}",
            message="{{ params.message }}",
            dvc_conn_id="{{ params.dvc_conn_id }}",
            outlets=[Asset(project["data_asset"])],
        )
