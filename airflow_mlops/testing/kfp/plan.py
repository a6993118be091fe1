"""What a compiled pipeline says is to be run: the server's own checks, then each task's command, in order. Pure.

Shapes: https://github.com/kubeflow/pipelines/blob/master/api/v2alpha1/pipeline_spec.proto
"""

from __future__ import annotations

import graphlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_mlops.testing.kfp.problems import Json, Problem, bad_input, hidden_bad_input

KINDS: dict[str, type | tuple[type, ...]] = {
    "STRING": str,
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}
NOT_MODELLED = ("triggerPolicy", "artifactIterator", "parameterIterator", "retryPolicy")
PLACEHOLDER = re.compile(r"\{\{\$\.(inputs|outputs)\.(parameters|artifacts)\['(.*?)'\](\.\w+)?\}\}")


@dataclass(frozen=True)
class Step:
    """One task: its component's container, and where its parameters come from."""

    name: str
    container: Json
    inputs: Json
    defaults: Json
    outputs: tuple[str, ...]


def plan(source: Json, parameters: Json) -> list[Step]:
    """Return the tasks in an order in which they can run.

    :param source: a compiled pipeline, alone or with its platform spec
    :raises Problem: the server refuses it, or this fake does not model it
    """
    pipeline = source.get("pipeline_spec", source)
    _check_pipeline(pipeline)
    _check_parameters(_declared(pipeline["root"]), parameters)
    tasks = pipeline["root"].get("dag", {}).get("tasks", {})
    order = graphlib.TopologicalSorter({name: _before(task) for name, task in tasks.items()})
    try:
        return [_step(name, tasks[name], pipeline) for name in order.static_order()]
    except (graphlib.CycleError, KeyError) as error:
        raise bad_input(f"Failed to compile job: {error!r}") from None


def _check_pipeline(pipeline: Json) -> None:
    step = "Failed to create a run due to error fetching manifest"
    if not pipeline.get("pipelineInfo", {}).get("name") or "root" not in pipeline:
        raise hidden_bad_input(step, "unknown template format")
    if pipeline.get("schemaVersion") != "2.1.0":
        told = pipeline.get("schemaVersion")
        raise hidden_bad_input(
            step, f"KFP only supports schema version 2.1.0, but the pipeline spec has version {told}"
        )


def _check_parameters(declared: Json, parameters: Json) -> None:
    for name, found in declared.items():
        if name not in parameters and not found.get("isOptional") and "defaultValue" not in found:
            raise bad_input(f"parameter {name} is not optional, yet has neither default value nor user provided value")
    for name, value in parameters.items():
        if name not in declared:
            raise bad_input(f"parameter(s) provided are not required by pipeline: {name}")
        wanted = declared[name].get("parameterType")
        if not isinstance(value, KINDS[wanted]) or (wanted != "BOOLEAN" and isinstance(value, bool)):
            raise bad_input(f"input parameter {name} requires type {wanted}")


def _declared(component: Json) -> Json:
    return dict(component.get("inputDefinitions", {}).get("parameters", {}))


def _before(task: Json) -> set[str]:
    sources = task.get("inputs", {}).get("parameters", {}).values()
    fed = {one["taskOutputParameter"]["producerTask"] for one in sources if "taskOutputParameter" in one}
    return fed | set(task.get("dependentTasks", []))


def _step(name: str, task: Json, pipeline: Json) -> Step:
    component = pipeline["components"][task["componentRef"]["name"]]
    executor = pipeline["deploymentSpec"]["executors"].get(component.get("executorLabel"), {})
    container = executor.get("container")
    wanted = [key for key in NOT_MODELLED if key in task]
    if container is None or wanted or task.get("inputs", {}).get("artifacts") or "{{$}}" in json.dumps(container):
        raise Problem(
            "UNIMPLEMENTED", f"The Kubeflow Pipelines fake does not model task {name}: {wanted or component}."
        )
    defaults = {key: one["defaultValue"] for key, one in _declared(component).items() if "defaultValue" in one}
    outputs = tuple(component.get("outputDefinitions", {}).get("parameters", {}))
    return Step(name, container, task.get("inputs", {}).get("parameters", {}), defaults, outputs)


def inputs_of(step: Step, given: Json, made: Mapping[str, Json]) -> Json:
    """Return the parameters of a task.

    :param given: parameters of the pipeline
    :param made: task -> its output parameters
    """
    found = dict(step.defaults)
    for key, source in step.inputs.items():
        if "taskOutputParameter" in source:
            producer = source["taskOutputParameter"]
            found[key] = made[producer["producerTask"]][producer["outputParameterKey"]]
        elif "runtimeValue" in source:
            found[key] = source["runtimeValue"]["constant"]
        elif source["componentInputParameter"] in given:
            found[key] = given[source["componentInputParameter"]]
    return found


def command_line(step: Step, inputs: Json, folder: str) -> list[str]:
    """Return the container's command with its placeholders filled; outputs are files in *folder*."""

    def fill(found: re.Match[str]) -> str:
        direction, _, name, _ = found.groups()
        return f"{folder}/{name}" if direction == "outputs" else text(inputs.get(name, ""))

    words = [*step.container.get("command", []), *step.container.get("args", [])]
    return [PLACEHOLDER.sub(fill, word) for word in words]


def text(value: Any) -> str:
    """Return a parameter as a command sees it."""
    return value if isinstance(value, str) else json.dumps(value)
