"""Compiled pipelines: read from a file, checked before anything is sent, and their parameters with them.

Pure, but for reading the file. A pipeline is what the Kubeflow Pipelines compiler 2 writes:
https://www.kubeflow.org/docs/components/pipelines/user-guides/core-functions/compile-a-pipeline/
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from airflow_mlops.core.errors import InvalidSpecError, NotFoundError, close_match

SUFFIXES = (".yaml", ".yml", ".json")
SCHEMA_VERSION = "2.1.0"

TYPES: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list, tuple),
    "STRUCT": (Mapping,),
}
"""``parameterType`` -> what a value must be. Whole numbers written as 3.0 are NUMBER_INTEGER too."""


def read_pipeline(value: Mapping[str, Any] | str) -> Mapping[str, Any] | str:
    """Return the pipeline in the file that *value* names, or *value* itself if it is a pipeline or a pipeline's name.

    Whether the platform can run it is for its backend to say.

    :raises NotFoundError: there is no such file
    :raises InvalidSpecError: the file holds no pipeline
    """
    if not isinstance(value, str) or "://" in value or not value.lower().endswith(SUFFIXES):
        return value
    try:
        documents = [found for found in yaml.safe_load_all(Path(value).read_text()) if found is not None]
    except OSError as error:
        raise NotFoundError(f"The pipeline file {value!r} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidSpecError(f"The pipeline file {value!r} is neither YAML nor JSON: {error}") from error
    return _joined(json.loads(json.dumps(documents, default=str)), value)


def _joined(documents: list[Any], where: str) -> Mapping[str, Any]:
    """Return one document as it is, and two (pipeline and platform) as the API takes them."""
    pipelines = [found for found in documents if isinstance(found, Mapping) and "platforms" not in found]
    platforms = [found for found in documents if isinstance(found, Mapping) and "platforms" in found]
    if len(pipelines) != 1 or len(platforms) > 1 or len(documents) != len(pipelines) + len(platforms):
        raise InvalidSpecError(f"{where!r} holds {len(documents)} documents, not one compiled pipeline.")
    return {"pipeline_spec": pipelines[0], "platform_spec": platforms[0]} if platforms else pipelines[0]


def checked(pipeline: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return *pipeline* if the server will take it.

    :raises InvalidSpecError: what is missing or wrong
    """
    found = body(pipeline)
    if "apiVersion" in found:
        raise InvalidSpecError(f"This is a {found.get('kind')!r} of Argo or Tekton. Compile the pipeline with kfp 2.")
    if not (name := pipeline_name(found)) or not isinstance(found.get("root"), Mapping):
        raise InvalidSpecError("A compiled pipeline has 'pipelineInfo.name' and 'root'. Compile it with kfp 2.")
    if (version := found.get("schemaVersion")) != SCHEMA_VERSION:
        raise InvalidSpecError(f"Pipeline {name!r} has the schema version {version!r}; the server takes '2.1.0'.")
    return pipeline


def body(pipeline: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the pipeline without what is for a platform only."""
    found = pipeline.get("pipeline_spec", pipeline)
    return found if isinstance(found, Mapping) else {}


def pipeline_name(pipeline: Mapping[str, Any]) -> str:
    """Return the name that the pipeline gives itself."""
    return str((body(pipeline).get("pipelineInfo") or {}).get("name", ""))


def task_names(pipeline: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of all tasks, also of pipelines within the pipeline."""
    return frozenset(name for dag in _dags(body(pipeline)) for name in dag)


def with_caching(pipeline: Mapping[str, Any], enabled: bool) -> Mapping[str, Any]:
    """Return the pipeline with caching on or off for every task."""
    changed = copy.deepcopy(dict(pipeline))
    for dag in _dags(body(changed)):
        for task in dag.values():
            task["cachingOptions"] = {"enableCache": enabled}
    return changed


def _dags(found: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the tasks of the root and of every component that is made of tasks."""
    for component in (found.get("root") or {}, *(found.get("components") or {}).values()):
        yield (component.get("dag") or {}).get("tasks") or {}


def check_parameters(pipeline: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    """Compare *parameters* with the inputs that the pipeline declares.

    :raises InvalidSpecError: naming the first that is unknown, missing or of another type
    """
    name = pipeline_name(pipeline)
    declared = ((body(pipeline).get("root") or {}).get("inputDefinitions") or {}).get("parameters") or {}
    for key, value in parameters.items():
        if key not in declared:
            raise InvalidSpecError(
                f"Pipeline {name!r} has no parameter {key!r}: {close_match(key, declared)}"
                f"It has {', '.join(declared) or 'none'}."
            )
        _check_value(name, key, value, declared[key])
    for key, found in declared.items():
        if key not in parameters and not found.get("isOptional") and "defaultValue" not in found:
            raise InvalidSpecError(f"Pipeline {name!r} needs the parameter {key!r}, a {found.get('parameterType')}.")


def _check_value(name: str, key: str, value: Any, declared: Mapping[str, Any]) -> None:
    wanted = str(declared.get("parameterType"))
    if not _is_of(value, wanted):
        raise InvalidSpecError(
            f"Parameter {key!r} of pipeline {name!r} is {value!r}, not a {wanted}. "
            "A template gives text unless the DAG has render_template_as_native_obj=True."
        )
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidSpecError(f"Parameter {key!r} of pipeline {name!r} is {value!r}: {error}.") from error
    literals = declared.get("literals") or ()
    if literals and value not in literals:
        raise InvalidSpecError(f"Parameter {key!r} of pipeline {name!r} is {value!r}, none of {list(literals)!r}.")


def _is_of(value: Any, wanted: str) -> bool:
    if isinstance(value, bool):
        return wanted == "BOOLEAN"
    if isinstance(value, float) and (not math.isfinite(value) or wanted == "NUMBER_INTEGER"):
        return math.isfinite(value) and value.is_integer()
    return isinstance(value, TYPES.get(wanted, ()))
