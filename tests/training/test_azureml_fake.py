"""The strict workspace refuses what the service refuses, so that a client that passes is well formed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from airflow_mlops.core.errors import ConflictError, InvalidSpecError, NotFoundError
from airflow_mlops.platforms.azure_ml import AzureMLClient
from airflow_mlops.testing.azureml import AzureMLFake, azureml_fake
from airflow_mlops.testing.azureml.problems import Problem
from airflow_mlops.testing.azureml.schema import JOB, check

GOOD: dict[str, Any] = {
    "jobType": "Command",
    "command": "true",
    "environmentId": "azureml://registries/azureml/environments/x/versions/1",
    "tags": {"a": "b"},
}


@pytest.fixture(scope="module")
def fake() -> Iterator[AzureMLFake]:
    """Run a workspace."""
    with azureml_fake() as found:
        yield found


@pytest.fixture
def client(fake: AzureMLFake) -> AzureMLClient:
    """Get in."""
    return AzureMLClient(fake.connection())


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"commmand": "x"}, "commmand"),
        ({"status": "Completed"}, "status"),
        ({"command": ""}, "properties.command"),
        ({"jobType": "Commnd"}, "properties.jobType"),
        ({"resources": {"instanceCount": "2"}}, "properties.resources.instanceCount"),
        ({"resources": {"instanceCount": True}}, "properties.resources.instanceCount"),
        ({"distribution": {"distributionType": "PyTorch", "workerCount": 1}}, "workerCount"),
        ({"limits": {"timeout": "PT5M"}}, "properties.limits.jobLimitsType"),
        ({"limits": {"jobLimitsType": "Command", "timeout": "300"}}, "properties.limits.timeout"),
        ({"queueSettings": {"jobTier": "Cheap"}}, "properties.queueSettings.jobTier"),
        ({"environmentVariables": {"A": 1}}, "properties.environmentVariables.A"),
        ({"properties": {"x": "y" * 1001}}, "properties.properties.x"),
        ({"tags": {str(number): "" for number in range(51)}}, "properties.tags"),
        ({"experimentName": "a b"}, "properties.experimentName"),
    ],
)
def test_what_the_schema_does_not_have_is_refused(change: dict[str, Any], path: str) -> None:
    """Unknown fields, wrong types, unknown words and what is too long are refused with their path."""
    with pytest.raises(Problem, match=path):
        check(JOB, {**GOOD, **change})
    check(JOB, GOOD)


def test_a_job_is_changed_only_where_it_may_be(client: AzureMLClient, fake: AzureMLFake) -> None:
    """A second PUT changes tags; other fields are refused in the service's words; properties can only be added."""
    client.put_job("changed", {**GOOD, "properties": {"a": "1"}})
    again = client.put_job("changed", {**GOOD, "tags": {"c": "d"}, "properties": {"a": "1", "b": "2"}})
    assert (again["properties"]["tags"], again["properties"]["properties"]) == ({"c": "d"}, {"a": "1", "b": "2"})
    with pytest.raises(ConflictError, match="command cannot be changed"):
        client.put_job("changed", {**GOOD, "command": "false"})
    with pytest.raises(InvalidSpecError, match="'a' cannot be altered"):
        client.put_job("changed", {**GOOD, "properties": {"a": "3"}})
    assert fake.started() == 1


def test_an_environment_never_changes(client: AzureMLClient) -> None:
    """The same version with another image is a conflict."""
    client._arm("PUT", "environments/e/versions/1", body={"properties": {"image": "a"}})
    with pytest.raises(ConflictError):
        client._arm("PUT", "environments/e/versions/1", body={"properties": {"image": "b"}})


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"api-version": "2019-01-01"}, "api-version"),
        ({"jobtype": "Command"}, "jobtype"),
    ],
)
def test_queries_are_held_to_the_api(client: AzureMLClient, query: dict[str, str], error: str) -> None:
    """An old version and an unknown parameter are refused."""
    with pytest.raises(InvalidSpecError, match=error):
        client._arm("GET", "jobs", params=query)


def test_tokens_are_for_one_audience(client: AzureMLClient, fake: AzureMLFake) -> None:
    """One for the data plane opens nothing of Azure Resource Manager, and a signed address takes none."""
    with pytest.raises(InvalidSpecError, match="HTTP 401"):
        client._rest.json("GET", f"{fake.address}{client.workspace_id}/jobs", "https://ml.azure.com")


def test_another_workspace_is_not_there(fake: AzureMLFake) -> None:
    """A wrong name is a 404."""
    with pytest.raises(NotFoundError, match="workspace"):
        AzureMLClient(fake.connection(workspace="other")).job("x")


def test_an_ended_job_cannot_be_cancelled(client: AzureMLClient, fake: AzureMLFake) -> None:
    """The service refuses it."""
    client.put_job("over", GOOD)
    while fake.going():
        pass
    fake.set_job("over", status="Completed")
    with pytest.raises(InvalidSpecError, match="terminal state"):
        client.cancel_job("over")
