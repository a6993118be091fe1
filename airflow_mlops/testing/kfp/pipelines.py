"""Small compiled pipelines of shell scripts, as the compiler of Kubeflow Pipelines 2 would write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_mlops.testing.kfp.problems import Json


def shell_pipeline(
    scripts: Mapping[str, str],
    *,
    name: str = "shell",
    inputs: Mapping[str, Mapping[str, Any]] | None = None,
    after: Mapping[str, list[str]] | None = None,
    outputs: Mapping[str, str] | None = None,
) -> Json:
    """Return a pipeline with one task for each script.

    Every task gets all parameters of the pipeline as ``$1``, ``$2`` and so on, in the order of *inputs*, then those
    that earlier tasks made.

    :param inputs: parameter -> such as ``{"parameterType": "STRING"}``
    :param after: task -> tasks before it
    :param outputs: task -> name of a parameter that it makes, in the file that ``$0`` names; all others get it
    """
    inputs, after, outputs = inputs or {}, after or {}, outputs or {}
    tasks, components, executors = {}, {}, {}
    for task, script in scripts.items():
        fed = {made: producer for producer, made in outputs.items() if producer != task}
        sources: Json = {key: {"componentInputParameter": key} for key in inputs}
        for made, producer in fed.items():
            sources[made] = {"taskOutputParameter": {"producerTask": producer, "outputParameterKey": made}}
        known = {**inputs, **{made: {"parameterType": "STRING"} for made in fed}}
        tasks[task] = _task(task, sources, after.get(task, []))
        components[f"comp-{task}"] = _component(task, known, outputs.get(task))
        executors[f"exec-{task}"] = {"container": _container(script, list(known), outputs.get(task))}
    root: Json = {"dag": {"tasks": tasks}}
    if inputs:
        root["inputDefinitions"] = {"parameters": {key: dict(value) for key, value in inputs.items()}}
    return {
        "pipelineInfo": {"name": name},
        "schemaVersion": "2.1.0",
        "sdkVersion": "kfp-2.14.0",
        "root": root,
        "components": components,
        "deploymentSpec": {"executors": executors},
    }


def _task(name: str, sources: Json, after: list[str]) -> Json:
    found: Json = {"taskInfo": {"name": name}, "componentRef": {"name": f"comp-{name}"}}
    found |= {"cachingOptions": {"enableCache": True}}
    if sources:
        found["inputs"] = {"parameters": sources}
    return found | ({"dependentTasks": after} if after else {})


def _component(task: str, known: Mapping[str, Any], made: str | None) -> Json:
    found: Json = {"executorLabel": f"exec-{task}"}
    if known:
        found["inputDefinitions"] = {"parameters": {key: dict(value) for key, value in known.items()}}
    return found | ({"outputDefinitions": {"parameters": {made: {"parameterType": "STRING"}}}} if made else {})


def _container(script: str, known: list[str], made: str | None) -> Json:
    first = f"{{{{$.outputs.parameters['{made}'].output_file}}}}" if made else "task"
    words = [f"{{{{$.inputs.parameters['{key}']}}}}" for key in known]
    return {"image": "busybox:1", "command": ["sh", "-c", script], "args": [first, *words]}
