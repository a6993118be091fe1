"""Train, judge and deploy a model whenever its data has a new version.

One DAG for every file in `projects/`. All that differs between two models is in that file: table, target, suite and
training script. Every parameter can be set in the trigger form; runs started by new data use the defaults.
"""

import json
from pathlib import Path

from airflow.sdk import DAG, Asset, Param

from airflow_mlops.groups import canary_rollout, training_pipeline

GATE, ROLLOUT, CONNECTIONS, PLATFORM = "Promotion gate", "Rollout", "Connections", "Where it trains"

for file in sorted((Path(__file__).parent / "projects").glob("*.json")):
    project = json.loads(file.read_text())
    with DAG(
        dag_id=f"{file.stem}_train_and_deploy",
        schedule=Asset(project["data_asset"]),
        catchup=False,
        max_active_runs=1,
        tags=["mlops", file.stem],
        doc_md=__doc__,
        params={
            "data_revision": Param(
                None,
                type=["null", "string"],
                title="Data revision",
                description="Branch, tag or commit. Empty: the version that triggered the run, else the newest.",
                section="Training",
            ),
            "training_parameters": Param(
                {},
                type="object",
                title="Training parameters",
                description="Passed to the training script as --name value.",
                section="Training",
            ),
            "backend": Param(
                "local",
                type="string",
                title="Training backend",
                description="local, kubernetes, kubeflow, sagemaker, vertex or azureml.",
                section=PLATFORM,
            ),
            "image": Param(None, type=["null", "string"], title="Container image", section=PLATFORM),
            "node_resources": Param(
                {},
                type="object",
                title="Resources",
                description="cpus, memory_mib, gpus, instance_type.",
                section=PLATFORM,
            ),
            "spot": Param(False, type="boolean", title="Spot machines", section=PLATFORM),
            "max_runtime": Param(None, type=["null", "number"], title="Seconds it may run", section=PLATFORM),
            "checkpoint": Param(None, type=["null", "string"], title="Checkpoints below", section=PLATFORM),
            "training_env": Param({}, type="object", title="Variables", section=PLATFORM),
            "training_secret_env": Param(
                {},
                type="object",
                title="Secrets",
                description="Variable and the name of its secret on the platform, never its value.",
                section=PLATFORM,
            ),
            "training_options": Param(
                {},
                type="object",
                title="Options",
                description="The platform's own further fields.",
                section=PLATFORM,
            ),
            "metric": Param("roc_auc", enum=["roc_auc", "accuracy", "log_loss"], title="Metric", section=GATE),
            "mode": Param(
                "superiority",
                enum=["superiority", "non_inferiority"],
                title="What the challenger must show",
                section=GATE,
            ),
            "min_effect": Param(0.0, type="number", minimum=0, title="Smallest gain worth a promotion", section=GATE),
            "margin": Param(
                0.005, type="number", minimum=0, title="Largest loss that counts as not worse", section=GATE
            ),
            "alpha": Param(
                0.05,
                type="number",
                exclusiveMinimum=0,
                maximum=0.5,
                title="Risk of promoting a model that is not better",
                section=GATE,
            ),
            "floors": Param(
                {"roc_auc": 0.55},
                type="object",
                title="Floors",
                description="Metric and the worst value that is accepted. All that a first model is judged by.",
                section=GATE,
            ),
            "target": Param("local", type="string", title="Deployment target", section=ROLLOUT),
            "steps": Param(
                [5, 25, 50, 100],
                type="array",
                items={"type": "number"},
                title="Canary traffic in percent",
                section=ROLLOUT,
            ),
            "max_prediction_shift": Param(
                0.3,
                type="number",
                minimum=0,
                maximum=1,
                title="Largest shift of the predictions",
                description="Kolmogorov-Smirnov distance between the old and the new model's answers, 0 to 1.",
                section=ROLLOUT,
            ),
            "bake": Param(300, type="number", minimum=1, title="Seconds each step is watched", section=ROLLOUT),
            "training_conn_id": Param(None, type=["null", "string"], title="Training connection", section=CONNECTIONS),
            "target_conn_id": Param(
                "gateway_default", type="string", title="Deployment connection", section=CONNECTIONS
            ),
            "mlflow_conn_id": Param("mlflow_default", type="string", title="MLflow connection", section=CONNECTIONS),
            "dvc_conn_id": Param("dvc_default", type="string", title="DVC connection", section=CONNECTIONS),
        },
    ) as dag:
        dag.params.update(project.get("defaults", {}))
        p = dag.param
        trained = training_pipeline(
            model_name=project["model_name"],
            data_path=project["data_path"],
            suite=project["suite"],
            command=project["command"],
            target=project["target"],
            rev="{{ params.data_revision or '' }}",
            backend=p("backend"),
            training_conn_id=p("training_conn_id"),
            parameters=p("training_parameters"),
            training={
                "image": p("image"),
                "node_resources": p("node_resources"),
                "spot": p("spot"),
                "max_runtime": p("max_runtime"),
                "checkpoint": p("checkpoint"),
                "env": p("training_env"),
                "secret_env": p("training_secret_env"),
                "options": p("training_options"),
            },
            dvc_conn_id=p("dvc_conn_id"),
            mlflow_conn_id=p("mlflow_conn_id"),
            gate={
                "metric": p("metric"),
                "mode": p("mode"),
                "min_effect": p("min_effect"),
                "margin": p("margin"),
                "alpha": p("alpha"),
                "floors": p("floors"),
            },
        )
        canary_rollout(
            endpoint=project["endpoint"],
            trained=trained,
            target=p("target"),
            conn_id=p("target_conn_id"),
            mlflow_conn_id=p("mlflow_conn_id"),
            steps=p("steps"),
            bake=p("bake"),
            guards={"max_prediction_shift": p("max_prediction_shift")},
        )
