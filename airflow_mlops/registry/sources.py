"""What a model address stands for: where its files are, and how MLflow wants to hear of it.

MLflow 3 keeps a logged model beside its run, not in it, and still lets people write ``runs:/<run>/<name>``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError, NotFoundError, close_match
from airflow_mlops.platforms.mlflow import MLflowClient

FORMS = "models:/m-<id> or runs:/<run id>/<model name>"


@dataclass(frozen=True)
class ModelSource:
    """The files of a model before it is registered.

    :param source: address to register, in the form the server accepts
    :param files: address of the folder of its files
    :param model_id: id of the logged model; empty for files that are in the run itself
    """

    source: str
    files: str
    run_id: str
    model_id: str = ""


def find_source(client: MLflowClient, model_uri: str, run_id: str = "") -> ModelSource:
    """Return what *model_uri* stands for.

    :raises InvalidSpecError: it has another form than ``models:/m-<id>`` or ``runs:/<run>/<name>``
    :raises NotFoundError: the run has no such model; the message lists those it has
    """
    kind, _, rest = model_uri.partition(":/")
    rest = rest.strip("/")
    if kind == "models" and rest.startswith("m-") and "/" not in rest:
        found = _logged(client.logged_model(rest))
    else:
        run, _, name = rest.partition("/")
        if kind != "runs" or not run or not name:
            raise InvalidSpecError(f"A model to register is given as {FORMS}, got {model_uri!r}.")
        found = _in_run(client, run, name)
    if run_id and found.run_id not in ("", run_id):
        raise InvalidSpecError(f"{model_uri!r} belongs to run {found.run_id!r}, not {run_id!r}. Give one of them only.")
    return replace(found, run_id=found.run_id or run_id)


def files_of(client: MLflowClient, name: str, version: str) -> str:
    """Return where the files of a registered version are, whoever registered it."""
    uri = client.download_uri(name, version)
    return find_source(client, uri).files if uri.startswith("runs:/") else uri


def _logged(info: dict[str, Any]) -> ModelSource:
    model_id = info["model_id"]
    return ModelSource(f"models:/{model_id}", info["artifact_uri"], info.get("source_run_id", ""), model_id)


def _in_run(client: MLflowClient, run_id: str, name: str) -> ModelSource:
    run = client.run(run_id)
    outputs = run.get("outputs", {}).get("model_outputs", ())
    logged = [client.logged_model(output["model_id"]) for output in outputs]
    for info in reversed(logged):
        if info["name"] == name:
            return _logged(info)
    folder = f"{run['info']['artifact_uri']}/{name}"
    if any(file.path == "MLmodel" for file in client.artifacts.files(folder)):
        return ModelSource(folder, folder, run_id)
    names = sorted({info["name"] for info in logged})
    raise NotFoundError(
        f"Run {run_id!r} has no model {name!r}: {close_match(name, names)}It has {', '.join(names) or 'none'}."
    )
