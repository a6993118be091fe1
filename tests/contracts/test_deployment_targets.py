"""Every deployment target keeps the contract, on the real platform where it runs on one machine."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import InvalidSpecError, JobFailedError, PlatformUnavailableError
from airflow_mlops.core.refs import ModelVersion
from airflow_mlops.deployment.contract import EndpointStatus
from airflow_mlops.deployment.targets.local import LocalTarget
from airflow_mlops.testing.deployment_target import Ask, DeploymentTargetContract, write_model
from airflow_mlops.testing.gateway import RunningGateway, running_gateway

TOKEN = "a-token-for-tests"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """Give a real gateway that wants a token."""
    with running_gateway(tmp_path_factory.mktemp("gateway"), token=TOKEN) as running:
        yield running


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelVersion, ...]:
    """Give two good models and one that cannot be loaded."""
    root = tmp_path_factory.mktemp("models")
    return (
        write_model(root / "tiny-1", "return [0.25] * len(table)"),
        write_model(root / "tiny-2", "return [0.75] * len(table)"),
        write_model(root / "tiny-3", "return None", load="raise RuntimeError('the weights are missing')"),
    )


def connection(gateway: RunningGateway, **fields: object) -> ConnectionInfo:
    """Give the connection a user would write."""
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    return ConnectionInfo(**{"conn_id": "g", "host": host, "port": int(port), "password": TOKEN, **fields})


class TestLocalTarget(DeploymentTargetContract):
    """The embedded gateway keeps every promise."""

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls, gateway: RunningGateway) -> LocalTarget:
        """Give the target of the gateway."""
        return LocalTarget.from_connection(connection(gateway))

    @pytest.fixture
    def ask(self) -> Ask:
        """Send one row."""

        def send(status: EndpointStatus) -> None:
            table = {"dataframe_split": {"columns": ["a"], "data": [[1.0]]}}
            httpx.post(
                status.url, json=table, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30
            ).raise_for_status()

        return send

    def test_a_failed_load_gives_the_reason_in_the_models_own_words(
        self, target: LocalTarget, endpoint: str, models: tuple[ModelVersion, ...]
    ) -> None:
        """Who reads the task log sees what the model's code said."""
        with pytest.raises(Exception, match="the weights are missing"):
            target.deploy(models[2], endpoint, revision="v3")

    def test_a_slow_model_is_given_up_after_the_time_that_was_asked_for(
        self, target: LocalTarget, endpoint: str, tmp_path: Path
    ) -> None:
        """A revision that is still loading after ready_timeout is taken away, and the message says what to raise."""
        slow = write_model(tmp_path / "tiny-5", "return None", load="time.sleep(60)")
        before = target.status(endpoint)
        with pytest.raises(Exception, match="ready_timeout"):
            target.deploy(slow, endpoint, revision="v5", options={"ready_timeout": 1})
        assert target.status(endpoint) == before

    def test_a_serving_revision_that_broke_is_deployed_again_with_its_own_reason(
        self, target: LocalTarget, gateway: RunningGateway, tmp_path: Path
    ) -> None:
        """What has traffic cannot be taken away; the error is about the model and not about that."""
        mark = tmp_path / "loaded"
        broken = f"if __import__('os').path.exists({str(mark)!r}): raise RuntimeError('out of weights')"
        load = f"{broken}\nopen({str(mark)!r}, 'w').close()"
        model = write_model(tmp_path / "tiny-7", "return [0.5] * len(table)", load=load)
        target.deploy(model, "fragile", revision="v7")
        with gateway.client() as client:
            os.kill(client.get("/health").json()["workers"]["fragile"]["v7"], signal.SIGKILL)
        while "out of weights" not in str(target.status("fragile")):
            time.sleep(0.1)
        with pytest.raises(JobFailedError, match="did not get ready"):
            target.deploy(model, "fragile", revision="v7", options={"ready_timeout": 0})
        assert target.status("fragile").traffic == {"v7": 100.0}

    def test_an_option_it_does_not_have_is_refused(
        self, target: LocalTarget, endpoint: str, models: tuple[ModelVersion, ...]
    ) -> None:
        """A typo is named, with the close option."""
        with pytest.raises(InvalidSpecError, match="did you mean 'ready_timeout'"):
            target.deploy(models[0], endpoint, revision="v6", options={"ready_timeut": 3})

    def test_a_model_without_a_folder_is_refused(self, target: LocalTarget, endpoint: str) -> None:
        """A registry's address is no folder; the message says what to do."""
        with pytest.raises(InvalidSpecError, match="Fetch the model first"):
            target.deploy(ModelVersion("tiny", "1", "models:/m-1"), endpoint, revision="v6")

    def test_a_wrong_token_is_refused_without_showing_it(self, gateway: RunningGateway) -> None:
        """The error says which field to set, and never has the token."""
        target = LocalTarget.from_connection(connection(gateway, password="guess-1"))
        with pytest.raises(InvalidSpecError, match="password") as caught:
            target.endpoints()
        assert "guess-1" not in str(caught.value) + repr(target.__dict__)


def test_nobody_there_is_said_with_the_address_and_the_next_step() -> None:
    """A gateway that was not started is worth another try, and the message says how to start one."""
    target = LocalTarget.from_connection(ConnectionInfo(host="127.0.0.1", port=9))
    with pytest.raises(PlatformUnavailableError, match=r"127\.0\.0\.1:9.*airflow-mlops-gateway"):
        target.endpoints()


def test_an_unknown_extra_is_refused() -> None:
    """A connection may not say more than the target knows."""
    with pytest.raises(InvalidSpecError, match="verify"):
        LocalTarget.from_connection(ConnectionInfo(host="127.0.0.1", extra={"verify": False}))
