"""The strict Kubeflow Pipelines server speaks the vendor's language: it is driven with the official client here."""

from __future__ import annotations

import json
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import kfp_server_api
import pytest

from airflow_mlops.testing.kfp import KfpFake, kfp_fake
from airflow_mlops.testing.kfp.pipelines import shell_pipeline

RUN_ID = "6b1f2c3d-0000-5000-8000-000000000001"


@pytest.fixture
def server() -> Iterator[KfpFake]:
    """Give a server of its own to each test."""
    with kfp_fake() as fake:
        yield fake


@pytest.fixture
def client(server: KfpFake) -> Iterator[Any]:
    """Give the official client, over TLS."""
    with kfp_server_api.ApiClient(server.configuration()) as found:
        yield found


@pytest.fixture
def runs(client: Any) -> Any:
    """Give the official client's runs."""
    return kfp_server_api.RunServiceApi(client)


def new(script: str = "true", **fields: Any) -> Any:
    """Return a run as the official client sends it."""
    pipeline = fields.pop("pipeline", shell_pipeline({"only": script}))
    config = kfp_server_api.V2beta1RuntimeConfig(parameters=fields.pop("parameters", {}))
    return kfp_server_api.V2beta1Run(
        **{"display_name": "r", "pipeline_spec": pipeline, "runtime_config": config, **fields}
    )


def until(runs: Any, run_id: str, done: Callable[[Any], bool]) -> Any:
    """Look until a run is as wanted."""
    end = time.monotonic() + 10
    while not done(run := runs.run_service_get_run(run_id)):
        assert time.monotonic() < end, run.state
        time.sleep(0.02)
    return run


def query(*predicates: dict[str, Any]) -> str:
    """Return a filter as it is sent."""
    return urllib.parse.quote(json.dumps({"predicates": list(predicates)}))


def test_tasks_run_in_order_and_hand_parameters_on(runs: Any) -> None:
    """Each command is a process; what one task wrote is a parameter of the next, with those of the pipeline."""
    scripts = {"use": 'test "$1 $2 $3" = "3 true 12"', "make": 'printf "$1"4 > /dev/null; printf 12 > "$0"'}
    inputs = {"n": {"parameterType": "NUMBER_INTEGER"}, "on": {"parameterType": "BOOLEAN"}}
    pipeline = shell_pipeline(scripts, inputs=inputs, outputs={"make": "made"})
    made = runs.run_service_create_run(new(pipeline=pipeline, parameters={"n": 3, "on": True}))
    run = until(runs, made.run_id, lambda found: found.state not in ("PENDING", "RUNNING"))
    assert run.state == "SUCCEEDED", run.run_details
    names = [task.display_name for task in run.run_details.task_details]
    assert [name for name in names if name in scripts] == ["make", "use"]
    assert [moment.state for moment in run.state_history] == ["PENDING", "RUNNING", "SUCCEEDED"]
    assert run.finished_at > run.created_at or run.finished_at == run.created_at


def test_a_failing_task_ends_the_run(runs: Any) -> None:
    """What follows it is not run; the exit code and the last words are in the task's error."""
    pipeline = shell_pipeline({"a": "echo why; exit 9", "b": "true"}, after={"b": ["a"]})
    made = runs.run_service_create_run(new(pipeline=pipeline))
    run = until(runs, made.run_id, lambda found: found.state == "FAILED")
    errors = {task.display_name: task.error.message for task in run.run_details.task_details if task.error}
    assert errors == {"a": "Error (exit code 9): why"}


def test_a_terminated_run_is_canceling_and_then_failed(runs: Any, server: KfpFake) -> None:
    """Its process is killed; a second order is refused, as is one for a run that is over."""
    made = runs.run_service_create_run(new("sleep 60"))
    until(runs, made.run_id, lambda found: found.state == "RUNNING")
    runs.run_service_terminate_run(made.run_id)
    run = until(runs, made.run_id, lambda found: found.state == "FAILED")
    assert [moment.state for moment in run.state_history][-2:] == ["CANCELING", "FAILED"]
    assert server.going() == 0
    with pytest.raises(kfp_server_api.ApiException) as caught:
        runs.run_service_terminate_run(made.run_id)
    assert caught.value.status == 400
    assert json.loads(caught.value.body)["code"] == 3


def test_an_id_that_is_taken_runs_twice(runs: Any, server: KfpFake) -> None:
    """As the real one: the client's id is used, and a second order with it starts a workflow before it is refused."""
    assert runs.run_service_create_run(new("sleep 60", run_id=RUN_ID)).run_id == RUN_ID
    with pytest.raises(kfp_server_api.ApiException) as caught:
        runs.run_service_create_run(new("sleep 60", run_id=RUN_ID))
    assert caught.value.status == 500
    assert server.workflows(RUN_ID) == 2


@pytest.mark.parametrize(
    ("fields", "status", "told"),
    [
        ({"display_name": ""}, 500, "Run name cannot be empty"),
        ({"pipeline": {"root": {}}}, 500, "unknown template format"),
        ({"pipeline": {**shell_pipeline({"a": "true"}), "schemaVersion": "2.0.0"}}, 500, "2.1.0"),
        ({"parameters": {"x": 1}}, 400, "not required by pipeline: x"),
        ({"experiment_id": "nobody"}, 404, "nobody"),
        ({"state": "RUNNING"}, 400, "state"),
    ],
)
def test_what_the_server_refuses(fields: dict[str, Any], status: int, told: str, runs: Any, server: KfpFake) -> None:
    """With its own codes, which are not always what one would expect, and without starting anything."""
    with pytest.raises(kfp_server_api.ApiException) as caught:
        runs.run_service_create_run(new(**fields))
    assert caught.value.status == status
    assert told in json.loads(caught.value.body)["message"]
    assert server.workflows() == 0


@pytest.mark.parametrize("change", [{"surprise": 1}, {"display_name": 3}, {"runtime_config": {"params": {}}}, []])
def test_a_body_of_another_shape_is_refused(change: Any, client: Any, server: KfpFake) -> None:
    """Unknown fields and wrong types are an error with the field's name, at any depth."""
    body = {"display_name": "r", **change} if isinstance(change, dict) else change
    with pytest.raises(kfp_server_api.ApiException) as caught:
        client.call_api("/apis/v2beta1/runs", "POST", body=body, auth_settings=["Bearer"])
    assert caught.value.status == 400
    assert server.workflows() == 0


def test_without_the_token_nobody_is_let_in(server: KfpFake) -> None:
    """A wrong token is 401."""
    wrong = server.configuration()
    wrong.api_key = {"authorization": "Bearer nonsense"}
    with kfp_server_api.ApiClient(wrong) as client, pytest.raises(kfp_server_api.ApiException) as caught:
        kfp_server_api.RunServiceApi(client).run_service_list_runs()
    assert caught.value.status == 401


def test_lists_are_filtered_sorted_and_paged(runs: Any) -> None:
    """Pages go on where the last one ended; predicates are joined; a token of another question is refused."""
    ids = [runs.run_service_create_run(new(display_name=f"run {number}")).run_id for number in range(5)]
    first = runs.run_service_list_runs(page_size=2, sort_by="display_name desc")
    assert [run.display_name for run in first.runs] == ["run 4", "run 3"]
    assert first.total_size == 5
    second = runs.run_service_list_runs(page_size=2, sort_by="display_name desc", page_token=first.next_page_token)
    assert [run.display_name for run in second.runs] == ["run 2", "run 1"]
    some = query({"operation": "IN", "key": "run_id", "string_values": {"values": ids[1:3]}})
    assert {run.run_id for run in runs.run_service_list_runs(filter=some).runs} == set(ids[1:3])
    both = query(
        {"operation": "IS_SUBSTRING", "key": "display_name", "string_value": "RUN"},
        {"operation": "NOT_EQUALS", "key": "run_id", "string_value": ids[0]},
    )
    assert runs.run_service_list_runs(filter=both).total_size == 4
    with pytest.raises(kfp_server_api.ApiException, match="page token does not match"):
        runs.run_service_list_runs(page_token=first.next_page_token, filter=both, sort_by="display_name desc")


@pytest.mark.parametrize(
    "predicate",
    [
        {"operation": "EQUALS", "key": "colour", "string_value": "x"},
        {"operation": "LIKE", "key": "run_id", "string_value": "x"},
        {"operation": "IN", "key": "run_id", "string_value": "x"},
        {"operation": "EQUALS", "key": "run_id"},
        {"op": "EQUALS", "key": "run_id", "string_value": "x"},
    ],
)
def test_a_wrong_predicate_is_refused(predicate: dict[str, Any], runs: Any) -> None:
    """An unknown field, operation or key is 400, also when there is a run that it could be about."""
    runs.run_service_create_run(new())
    with pytest.raises(kfp_server_api.ApiException) as caught:
        runs.run_service_list_runs(filter=query(predicate))
    assert caught.value.status == 400


def test_experiments_and_pipelines_are_found_by_name(client: Any, server: KfpFake) -> None:
    """A name is taken once (409); a version is run by its reference."""
    experiments = kfp_server_api.ExperimentServiceApi(client)
    made = experiments.experiment_service_create_experiment(kfp_server_api.V2beta1Experiment(display_name="e"))
    with pytest.raises(kfp_server_api.ApiException) as caught:
        experiments.experiment_service_create_experiment(kfp_server_api.V2beta1Experiment(display_name="e"))
    assert caught.value.status == 409
    version = server.upload("p", "v1", shell_pipeline({"only": "true"}))
    pipelines = kfp_server_api.PipelineServiceApi(client)
    pipeline_id = pipelines.pipeline_service_get_pipeline_by_name("p").pipeline_id
    (found,) = pipelines.pipeline_service_list_pipeline_versions(pipeline_id).pipeline_versions
    assert found.pipeline_version_id == version["pipeline_version_id"]
    reference = kfp_server_api.V2beta1PipelineVersionReference(pipeline_id, found.pipeline_version_id)
    run = kfp_server_api.V2beta1Run(
        display_name="r", pipeline_version_reference=reference, experiment_id=made.experiment_id
    )
    made_run = kfp_server_api.RunServiceApi(client).run_service_create_run(run)
    assert made_run.pipeline_version_reference.pipeline_id == pipeline_id


def test_with_many_users_namespaces_matter(server: KfpFake) -> None:
    """A list without a namespace and a run without an experiment are refused; runs of others are not seen."""
    with kfp_fake(multi_user=True) as many, kfp_server_api.ApiClient(many.configuration()) as client:
        runs, experiments = kfp_server_api.RunServiceApi(client), kfp_server_api.ExperimentServiceApi(client)
        for act in (runs.run_service_list_runs, lambda: runs.run_service_create_run(new())):
            with pytest.raises(kfp_server_api.ApiException) as caught:
                act()
            assert caught.value.status == 400
        mine = kfp_server_api.V2beta1Experiment(display_name="e", namespace="a")
        experiment = experiments.experiment_service_create_experiment(mine)
        runs.run_service_create_run(new(experiment_id=experiment.experiment_id))
        assert len(runs.run_service_list_runs(namespace="a").runs) == 1
        assert runs.run_service_list_runs(namespace="b").runs is None


def test_a_crash_loses_nothing(runs: Any, server: KfpFake) -> None:
    """While the server is down connections are refused and workflows go on; afterwards it knows all it knew."""
    made = runs.run_service_create_run(new("sleep 0.3"))
    server.crash()
    with pytest.raises(Exception, match="refused"):
        runs.run_service_get_run(made.run_id)
    time.sleep(0.5)
    server.restart()
    assert until(runs, made.run_id, lambda found: found.state == "SUCCEEDED").run_id == made.run_id
