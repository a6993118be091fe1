"""What the connection of the type ``azure`` may say, and what Azure's errors mean to a caller."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import InvalidSpecError, NotFoundError, PlatformUnavailableError, QuotaExceededError
from airflow_mlops.platforms.azure import CLOUDS, AzureTokens, Identity
from airflow_mlops.platforms.azure_ml import AzureMLClient
from airflow_mlops.testing.azureml import AzureMLFake, azureml_fake
from airflow_mlops.testing.azureml.problems import Problem

WHERE = {"tenantId": "t", "subscriptionId": "s", "resource_group": "g", "workspace": "w"}


def info(**extra: Any) -> ConnectionInfo:
    """Return a connection of a service principal."""
    return ConnectionInfo("azure", login="client", password="hush", extra={**WHERE, **extra})


@pytest.fixture
def fake() -> Iterator[AzureMLFake]:
    """Run a workspace."""
    with azureml_fake() as found:
        yield found


def test_it_leads_to_a_workspace() -> None:
    """Scope, id and page of a job come from the connection alone."""
    client = AzureMLClient(info())
    assert client.scope == "s/g/w"
    assert (
        client.workspace_id
        == "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
    )
    assert client.console_url("j") == f"https://ml.azure.com/runs/j?wsid={client.workspace_id}&tid=t"


@pytest.mark.parametrize("key", ["subscriptionId", "resource_group", "workspace"])
@pytest.mark.parametrize("value", ["", "a/b", "a?b"])
def test_a_missing_place_is_named(key: str, value: str) -> None:
    """A part that is missing, or that would change the address, is refused by the extra's name."""
    with pytest.raises(InvalidSpecError, match=f"'{key}'"):
        AzureMLClient(info(**{key: value}))


def test_unknown_extras_are_refused() -> None:
    """A typo is named with what was meant."""
    with pytest.raises(InvalidSpecError, match="did you mean 'workspace'"):
        AzureMLClient(info(workspaces="w"))


def test_the_official_extras_are_taken() -> None:
    """An Airflow connection as it is works, with extras that mean nothing here."""
    assert AzureMLClient(info(use_azure_identity_object=True, managed_identity_client_id="")).scope == "s/g/w"


@pytest.mark.parametrize("name", list(CLOUDS))
def test_every_cloud_has_its_own_addresses(name: str) -> None:
    """The studio of another cloud is in the pages of its jobs."""
    client = AzureMLClient(info(cloud_environment=name))
    assert client.console_url("j").startswith(CLOUDS[name].studio)


def test_an_unknown_cloud_is_refused() -> None:
    """The message has a close match."""
    with pytest.raises(InvalidSpecError, match="did you mean 'AzureChinaCloud'"):
        AzureMLClient(info(cloud_environment="AzureChina"))


KEY = {"clientId": "c", "clientSecret": "hush", "tenantId": "kt", "subscriptionId": "ks"}


@pytest.mark.parametrize("kind", ["json", "text", "path"])
def test_a_key_file_is_a_service_principal(kind: str, tmp_path: Path) -> None:
    """As Airflow's own hook takes it: the object, its text, or the path of a file."""
    (tmp_path / "key.json").write_text(json.dumps(KEY))
    text = {"json": KEY, "text": json.dumps(KEY), "path": str(tmp_path / "key.json")}[kind]
    options = {"key_path" if kind == "path" else "key_json": text}
    assert Identity.of(ConnectionInfo("azure"), options) == Identity("c", "hush", "kt", "ks")


@pytest.mark.parametrize("options", [{"key_path": "/nowhere.json"}, {"key_json": "{"}, {"key_json": "[1]"}])
def test_a_key_file_that_cannot_be_read_is_refused(options: dict[str, str]) -> None:
    """The message names the file or the connection."""
    with pytest.raises(InvalidSpecError, match=r"nowhere\.json|'azure'"):
        Identity.of(ConnectionInfo("azure"), options)


@pytest.mark.parametrize(("login", "tenant", "missing"), [("", "t", "login"), ("c", "", "tenantId")])
def test_half_a_service_principal_is_refused(login: str, tenant: str, missing: str) -> None:
    """The message says which part is missing, and no secret."""
    with pytest.raises(InvalidSpecError, match=missing) as caught:
        Identity.of(ConnectionInfo("azure", login=login, password="hush"), {"tenantId": tenant})
    assert "hush" not in str(caught.value)


def test_nothing_shows_a_secret() -> None:
    """Representations have neither password nor token."""
    tokens = AzureTokens(info(), WHERE)
    assert "hush" not in repr(tokens) + repr(tokens.__dict__["_identity"]) + repr(AzureMLClient(info()))


def test_a_machine_is_an_identity_of_its_own(fake: AzureMLFake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a password Azure's own library finds who this machine is, here a managed identity."""
    monkeypatch.setenv("MSI_ENDPOINT", f"{fake.address}/msi/token")
    monkeypatch.setenv("MSI_SECRET", fake.msi_secret)
    client = AzureMLClient(ConnectionInfo("azure", extra=fake.extras(managed_identity_client_id="c")))
    with pytest.raises(NotFoundError, match="Job x"):
        client.job("x")


def test_a_machine_that_is_nobody_is_told_so(fake: AzureMLFake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to check, and asks nobody to try again."""
    monkeypatch.setenv("MSI_ENDPOINT", f"{fake.address}/msi/token")
    monkeypatch.setenv("MSI_SECRET", "wrong")
    with pytest.raises(InvalidSpecError, match="managed identity of this machine"):
        AzureMLClient(ConnectionInfo("azure", extra=fake.extras())).job("x")


def test_who_gives_tokens_may_fail(fake: AzureMLFake) -> None:
    """An error on their side is an outage, too."""
    fake.faults.fail(50, code=503, verb="Token")
    with pytest.raises(PlatformUnavailableError, match="no token"):
        AzureMLClient(fake.connection()).job("x")


def test_who_gives_tokens_may_be_away(fake: AzureMLFake) -> None:
    """That is an outage and no refusal."""
    client = AzureMLClient(fake.connection())
    fake.crash()
    with pytest.raises(PlatformUnavailableError):
        client.job("x")


@pytest.mark.parametrize(
    ("problem", "error", "said"),
    [
        (Problem(400, "QuotaExceeded", "Too many cores."), QuotaExceededError, "Too many cores"),
        (Problem(400, "UserError", "No.", inner=("BadArgument",)), InvalidSpecError, "HTTP 400"),
        (Problem(302, "Found", "Elsewhere."), InvalidSpecError, "credentials"),
        (Problem(408, "RequestTimeout", "Slow."), PlatformUnavailableError, "HTTP 408"),
    ],
)
def test_what_an_error_means(fake: AzureMLFake, problem: Problem, error: type[Exception], said: str) -> None:
    """Its class says what the caller may do."""
    fake.faults.refuse(9, problem, verb="GetJob")
    with pytest.raises(error, match=said):
        AzureMLClient(fake.connection()).job("x")


def test_a_page_of_elsewhere_is_not_asked_for(fake: AzureMLFake) -> None:
    """The token goes nowhere but to the endpoint, whatever a list says where it goes on."""
    client = AzureMLClient(fake.connection())
    for link in ("https://evil.example/jobs?$skip=10", fake.address.replace("https", "http") + "/jobs"):
        with pytest.raises(InvalidSpecError, match="next page"):
            client._ours(link)
    plain = AzureMLClient(info())
    assert plain._ours("https://management.azure.com:443/jobs") == "https://management.azure.com:443/jobs"


@pytest.mark.parametrize("host", ["evil.example", "api.azureml.ms.evil.example", "x@evil.example", ""])
def test_a_run_history_of_elsewhere_is_not_asked(fake: AzureMLFake, host: str) -> None:
    """Whoever may make a job may write where its run history is; the token goes to Azure's own hosts alone."""
    client = AzureMLClient(fake.connection())
    job = {"name": "j", "properties": {"services": {"Tracking": {"endpoint": f"azureml://{host}/mlflow/v1.0"}}}}
    with pytest.raises(NotFoundError, match="run history"):
        client.details(job)
