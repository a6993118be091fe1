"""Search for better training parameters, and let the best model found go the way of every other one.

One DAG for every file in `projects/` that has a `sweep`. Round by round some trainings run at the same time, each round
learning from those before. The best one is registered, profiled, judged against the champion and, if it is better,
promoted and rolled out. In MLflow all trainings hang below one run.
"""

import json
from pathlib import Path

from airflow.sdk import DAG, Param

from airflow_mlops.groups import canary_rollout, sweep, training_pipeline

SEARCH, AFTER, CONNECTIONS = "Search", "After it", "Connections"

for file in sorted((Path(__file__).parent / "projects").glob("*.json")):
    project = json.loads(file.read_text())
    if "sweep" not in project:
        continue
    search = project["sweep"]
    with DAG(
        dag_id=f"{file.stem}_sweep",
        schedule=None,
        catchup=False,
        max_active_runs=1,
        tags=["mlops", file.stem],
        doc_md=__doc__,
        params={
            "space": Param(
                search["space"],
                type="object",
                title="Search space",
                description='Parameter: {"low", "high"} with "log", "step" or "type": "int", or {"choices"}.',
                section=SEARCH,
            ),
            "metric": Param(search["metric"], type="string", title="Metric of the training script", section=SEARCH),
            "direction": Param("maximize", enum=["maximize", "minimize"], title="Which is better", section=SEARCH),
            "trials": Param(
                4, type="integer", minimum=1, title=f"Trainings a round, {search['rounds']} rounds", section=SEARCH
            ),
            "sampler": Param("tpe", enum=["tpe", "random", "grid"], title="Sampler", section=SEARCH),
            "seed": Param(0, type="integer", title="Seed", section=SEARCH),
            "initial": Param(
                [], type="array", items={"type": "object"}, title="Parameter sets to try first", section=SEARCH
            ),
            "parameters": Param({}, type="object", title="Parameters of every training", section=SEARCH),
            "max_failed": Param(
                0.5, type="number", minimum=0, maximum=1, title="Largest share that may fail", section=SEARCH
            ),
            "backend": Param("local", type="string", title="Training backend", section=SEARCH),
            "data_revision": Param(None, type=["null", "string"], title="Data revision", section=SEARCH),
            "gate_metric": Param(
                "roc_auc", enum=["roc_auc", "accuracy", "log_loss"], title="Metric of the promotion gate", section=AFTER
            ),
            "min_effect": Param(0.0, type="number", minimum=0, title="Smallest gain worth a promotion", section=AFTER),
            "floors": Param({"roc_auc": 0.55}, type="object", title="Worst values of a first model", section=AFTER),
            "target": Param("local", type="string", title="Deployment target", section=AFTER),
            "steps": Param([5, 25, 50, 100], type="array", title="Canary traffic in percent", section=AFTER),
            "bake": Param(300, type="number", minimum=1, title="Seconds each step is watched", section=AFTER),
            "training_conn_id": Param(None, type=["null", "string"], title="Training connection", section=CONNECTIONS),
            "target_conn_id": Param(
                "gateway_default", type="string", title="Deployment connection", section=CONNECTIONS
            ),
            "mlflow_conn_id": Param("mlflow_default", type="string", title="MLflow connection", section=CONNECTIONS),
            "dvc_conn_id": Param("dvc_default", type="string", title="DVC connection", section=CONNECTIONS),
        },
    ) as dag:
        dag.params.update(search.get("defaults", {}))
        p = dag.param
        names = ("space", "metric", "direction", "sampler", "seed", "initial", "max_failed")
        trained = training_pipeline(
            model_name=project["model_name"],
            data_path=project["data_path"],
            suite=project["suite"],
            command=project["command"],
            target=project["target"],
            rev="{{ params.data_revision or '' }}",
            backend=p("backend"),
            training_conn_id=p("training_conn_id"),
            parameters=p("parameters"),
            dvc_conn_id=p("dvc_conn_id"),
            mlflow_conn_id=p("mlflow_conn_id"),
            operators={"train": sweep},
            training={"rounds": search["rounds"], "n_trials": p("trials"), **{name: p(name) for name in names}},
            gate={"metric": p("gate_metric"), "min_effect": p("min_effect"), "floors": p("floors")},
        )
        canary_rollout(
            endpoint=project["endpoint"],
            trained=trained,
            target=p("target"),
            conn_id=p("target_conn_id"),
            mlflow_conn_id=p("mlflow_conn_id"),
            steps=p("steps"),
            bake=p("bake"),
        )
