"""What Airflow is told about this package: connection types and links. Imported by every process, so it is light."""

from __future__ import annotations

from typing import Any

from airflow_mlops import __version__

Fields = dict[str, dict[str, Any]]


def get_provider_info() -> dict[str, Any]:
    """Return the description Airflow reads through the ``apache_airflow_provider`` entry point."""
    return {
        "package-name": "airflow-mlops",
        "name": "MLOps",
        "description": "Building blocks that make Apache Airflow a complete MLOps platform.",
        "versions": [__version__],
        "connection-types": [_dvc(), _mlflow(), _gateway(), _local_training(), _kubernetes(), _kubeflow_pipelines()],
        "extra-links": [
            "airflow_mlops.links.training.TrainingJobLink",
            "airflow_mlops.links.training.TrackingRunLink",
            "airflow_mlops.links.pipelines.PipelineRunLink",
            "airflow_mlops.links.deployment.EndpointLink",
        ],
        "task-decorators": [{"name": "train", "class-name": "airflow_mlops.decorators.train.train_task"}],
        "config": {
            "mlops": {
                "description": "Who this Airflow is to its platforms, and the page MLOps of its UI.",
                "options": {**_identity_options(), **_page_options()},
            }
        },
    }


def _identity_options() -> dict[str, Any]:
    return {
        "deployment_id": _option(
            "",
            "Name of this Airflow on the platforms its jobs run on. Two that share a platform need two names: by it a "
            "job's name differs, and the janitor knows which jobs are its own.",
        ),
    }


def _page_options() -> dict[str, Any]:
    return {
        "mlflow_conn_id": _option("mlflow_default", "Connection of the MLflow server whose models are shown."),
        "mlflow_ui_url": _option("", "Address of MLflow for browsers, if it differs from the connection's."),
        "deployment_targets": _option(
            "local:gateway_default", "Targets whose endpoints are shown: <target>:<connection>, separated by commas."
        ),
    }


def _option(default: str, description: str) -> dict[str, Any]:
    return {
        "description": description,
        "version_added": __version__,
        "type": "string",
        "example": None,
        "default": default,
    }


def _dvc() -> dict[str, Any]:
    return _connection(
        "dvc",
        "airflow_mlops.hooks.dvc.DvcHook",
        "DVC repository",
        hidden=["port", "schema"],
        labels={"host": "Git repository", "login": "Git user", "password": "Git password or token"},
        placeholders={"host": "https://git.example.com/team/data.git"},
        fields={
            "remote_url": _text(
                "DVC remote", "Overrides the repository's default remote, for example s3://bucket/dvc."
            ),
            "remote_options": _field("object", "Options of the remote", "DVC's own names, for example endpointurl."),
            "workdir": _text("Work folder", "A lasting local folder for the git mirror and checked-out versions."),
            "cache_dir": _text("Cache folder", "DVC's cache; a folder below the work folder when empty."),
        },
    )


def _mlflow() -> dict[str, Any]:
    return _connection(
        "mlflow",
        "airflow_mlops.hooks.mlflow.MLflowHook",
        "MLflow",
        labels={"schema": "http or https", "password": "Password, or a bearer token without a login"},
        placeholders={"host": "mlflow.example.com", "port": "5000"},
        fields={
            "verify": _field(["boolean", "string"], "Verify TLS", "False, or the path of a CA bundle."),
            "timeout": _field("number", "Timeout", "Seconds for one request."),
        },
    )


def _gateway() -> dict[str, Any]:
    return _connection(
        "mlops_gateway",
        "airflow_mlops.hooks.deployment.DeploymentHook",
        "MLOps gateway",
        hidden=["login"],
        labels={"schema": "http or https", "password": "Token"},
        placeholders={"host": "127.0.0.1", "port": "8090"},
        fields={"timeout": _field("number", "Timeout", "Seconds for one request.")},
    )


def _local_training() -> dict[str, Any]:
    return _connection(
        "mlops_local",
        "airflow_mlops.hooks.training.TrainingHook",
        "MLOps local training",
        hidden=["host", "port", "schema", "login", "password"],
        fields={
            "workdir": _text("Job folder", "Where jobs keep their state and logs; must outlive the worker."),
            "cwd": _text("Working folder", "Folder the jobs run in."),
            "inherit_env": _field("array", "Inherited variables", "The worker's environment variables that jobs see."),
            "grace": _field("number", "Grace", "Seconds a job has to end in peace before it is killed."),
            "residency": _field(["string", "array"], "Residency", "What data may come here; on-prem when empty."),
        },
    )


def _kubernetes() -> dict[str, Any]:
    return _connection(
        "mlops_kubernetes",
        "airflow_mlops.hooks.training.KubernetesTrainingHook",
        "MLOps Kubernetes training",
        hidden=["host", "port", "schema", "login", "password"],
        fields={
            "in_cluster": _field("boolean", "In cluster", "The workers run in the cluster and use their own account."),
            "kube_config_path": _text("Path of a kubeconfig", "A file on the workers and the triggerer."),
            "kube_config": _field(["object", "string"], "Kubeconfig", "Its content instead of a path."),
            "cluster_context": _text("Context", "Of the kubeconfig; by default its current one."),
            "namespace": _text("Namespace", "Where jobs run."),
            "console_url": _text("Console", "Page of a job, for example https://console/{namespace}/{name}."),
            "fetch_image": _text("Fetch image", "Image with git and dvc that fetches inputs."),
            "fetch_secret": _text("Fetch secret", "Secret with the variables that fetching needs."),
            "runtime": _text("Kubeflow runtime", "TrainingRuntime of TrainJobs, by default torch-distributed."),
            "runtime_kind": _text("Kind of the runtime", "ClusterTrainingRuntime or TrainingRuntime."),
            "residency": _field(["string", "array"], "Residency", "What data that may not go anywhere may come here."),
        },
    )


def _kubeflow_pipelines() -> dict[str, Any]:
    return _connection(
        "kubeflow_pipelines",
        "airflow_mlops.hooks.pipelines.PipelineHook",
        "Kubeflow Pipelines",
        labels={"login": "User (kubeflow-userid)", "password": "Bearer token", "schema": "http or https"},
        placeholders={"host": "kubeflow.example.com/pipeline"},
        fields={
            "namespace": _text("Namespace", "Profile, for servers with many users."),
            "console_url": _text("Console", "Address of the pages, by default the host."),
            "token_path": _text("Token file", "File of a token that is renewed."),
            "residency": _field(["string", "array"], "Residency", "What data that may not go anywhere may come here."),
            "userid_header": _text("User header", "Header that tells the user, by default kubeflow-userid."),
            "verify": _field(["boolean", "string"], "Verify TLS", "False, or the path of a CA bundle."),
            "timeout": _field("number", "Timeout", "Seconds for one request."),
        },
    )


def _connection(
    conn_type: str,
    hook: str,
    name: str,
    *,
    fields: Fields,
    hidden: list[str] | None = None,
    labels: dict[str, str] | None = None,
    placeholders: dict[str, str] | None = None,
) -> dict[str, Any]:
    form = {"hidden-fields": [*(hidden or []), "extra"], "relabeling": labels or {}, "placeholders": placeholders or {}}
    return {
        "connection-type": conn_type,
        "hook-class-name": hook,
        "hook-name": name,
        "ui-field-behaviour": form,
        "conn-fields": fields,
    }


def _text(label: str, description: str) -> dict[str, Any]:
    return _field("string", label, description)


def _field(kind: str | list[str], label: str, description: str) -> dict[str, Any]:
    kinds = [kind, "null"] if isinstance(kind, str) else [*kind, "null"]
    return {"label": label, "description": description, "schema": {"type": kinds}}
