"""Prepare and check data where it has to stay, and train elsewhere on what may leave.

One DAG for every file in `projects/`. The raw data never leaves: the job that prepares it has the residency `on-prem`.
What it writes is checked and kept as a data version, which goes where its own residency allows (`residency` below
`meta` in its .dvc file). If the connection of the backend does not say that it is there, nothing is submitted.
"""

import json
from pathlib import Path

from airflow.sdk import DAG, Param

from airflow_mlops.operators.data import DvcSnapshotOperator
from airflow_mlops.operators.registry import RegisterModelOperator
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.operators.validation import ValidateDataOperator

HERE, THERE, COST, CONNECTIONS = "Prepare here", "Train there", "Cost", "Connections"
COPY = ["sh", "-c", 'mkdir -p "$MLOPS_PREPARED" && cp -R "$MLOPS_INPUT_RAW"/. "$MLOPS_PREPARED"']

for file in sorted((Path(__file__).parent / "projects").glob("*.json")):
    project = json.loads(file.read_text())
    prepared = f"{project['landing']}.prepared/{{{{ run_id }}}}"
    with DAG(
        dag_id=f"{file.stem}_prepare_here_train_there",
        schedule=None,
        max_active_runs=1,
        tags=["mlops", file.stem],
        doc_md=__doc__,
        params={
            "source": Param(project["landing"], type="string", title="Raw data", section=HERE),
            "prepare": Param(
                project.get("prepare", COPY),
                type="array",
                items={"type": "string"},
                title="Preparing program",
                description="Reads the folder MLOPS_INPUT_RAW and writes the folder MLOPS_PREPARED. By default a copy.",
                section=HERE,
            ),
            "tag": Param(None, type=["null", "string"], title="Name of the data version", section=HERE),
            "backend": Param("kubernetes", type="string", title="Training backend", section=THERE),
            "image": Param(None, type=["null", "string"], title="Container image", section=THERE),
            "code": Param("/opt/training", type="string", title="Folder of the code in the image", section=THERE),
            "training_parameters": Param({}, type="object", title="Training parameters", section=THERE),
            "node_resources": Param({}, type="object", title="Resources of a node", section=THERE),
            "spot": Param(False, type="boolean", title="Spot machines", section=THERE),
            "max_runtime": Param(3600, type="number", title="Seconds it may run", section=THERE),
            "training_env": Param({}, type="object", title="Variables", section=THERE),
            "training_secret_env": Param(
                {},
                type="object",
                title="Secrets",
                description="Variable and the name of its secret on the platform, never its value.",
                section=THERE,
            ),
            "training_options": Param({}, type="object", title="The platform's own options", section=THERE),
            "residency": Param(
                None,
                type=["null", "string"],
                title="Where the training has to stay",
                description="Besides what the data version says of itself. The connection's extra 'residency' decides.",
                section=THERE,
            ),
            "price_table": Param(None, type=["null", "string"], title="Price table on the worker", section=COST),
            "budget": Param(None, type=["null", "number"], title="Budget", section=COST),
            "budget_mode": Param("hard", enum=["hard", "soft"], title="Above the budget: refuse or warn", section=COST),
            "training_conn_id": Param(None, type=["null", "string"], title="Training connection", section=CONNECTIONS),
            "dvc_conn_id": Param("dvc_default", type="string", title="DVC connection", section=CONNECTIONS),
            "mlflow_conn_id": Param("mlflow_default", type="string", title="MLflow connection", section=CONNECTIONS),
        },
    ) as dag:
        p = dag.param
        prepare = TrainModelOperator(
            task_id="prepare",
            backend="local",
            command=p("prepare"),
            inputs={"raw": "{{ params.source }}"},
            env={"MLOPS_PREPARED": prepared},
            residency="on-prem",
        )
        validate = ValidateDataOperator(
            task_id="validate",
            data=prepared,
            file="train.parquet",
            suite=project["suite"],
            dvc_conn_id=p("dvc_conn_id"),
        )
        publish = DvcSnapshotOperator(
            task_id="publish",
            source=prepared,
            path=project["data_path"],
            tag="{{ params.tag or '' }}",
            message="Prepared here",
            on_unchanged="continue",
            dvc_conn_id=p("dvc_conn_id"),
        )
        train = TrainModelOperator(
            task_id="train",
            backend=p("backend"),
            conn_id=p("training_conn_id"),
            image=p("image"),
            command=[part.replace("{code}", "{{ params.code }}") for part in project["command"]],
            inputs={"train": publish.output},
            parameters=p("training_parameters"),
            node_resources=p("node_resources"),
            spot=p("spot"),
            max_runtime=p("max_runtime"),
            env=p("training_env"),
            secret_env=p("training_secret_env"),
            options=p("training_options"),
            experiment=project["model_name"],
            residency=p("residency"),
            price_table=p("price_table"),
            budget=p("budget"),
            budget_mode=p("budget_mode"),
            mlflow_conn_id=p("mlflow_conn_id"),
        )
        register = RegisterModelOperator(
            task_id="register",
            model_name=project["model_name"],
            training=train.output,
            validation=validate.output,
            mlflow_conn_id=p("mlflow_conn_id"),
        )
        prepare >> validate >> publish
