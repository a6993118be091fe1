"""The promises of every deployment target, as a suite that a test subclasses, and models small enough to load at once.

Give it three fixtures: ``target``; ``models``, three deployable versions with different files, of which the third never
gets ready; and ``ask``, a function that sends one request to an endpoint.
"""

from __future__ import annotations

import textwrap
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_mlops.core.digests import folder_digest
from airflow_mlops.core.errors import ConflictError, IntegrityError, InvalidSpecError, JobFailedError, NotFoundError
from airflow_mlops.core.refs import ModelVersion
from airflow_mlops.deployment.contract import DeploymentTarget, EndpointStatus, RevisionState

Ask = Callable[[EndpointStatus], object]

_MLMODEL = """
flavors:
  python_function:
    loader_module: tiny_model
    code: code
    python_version: 3.11.0
model_uuid: {uuid}
"""

_CODE = """
import random
import time

class Tiny:
    def predict(self, table, params=None):
{body}

def _load_pyfunc(path):
{load}
    return Tiny()
"""


def write_model(folder: Path, predict: str, *, load: str = "pass") -> ModelVersion:
    """Write an MLflow model whose ``predict(self, table, params)`` has the body *predict*, and return it as a version.

    :param folder: a new folder; its name ends with the version number
    :param predict: Python source; ``random`` and ``time`` are imported
    :param load: Python source that runs while it is loaded
    """
    code = folder / "code"
    code.mkdir(parents=True)
    (folder / "MLmodel").write_text(_MLMODEL.format(uuid=uuid.uuid4().hex).lstrip())
    source = _CODE.format(body=textwrap.indent(predict, " " * 8), load=textwrap.indent(load, " " * 4))
    (code / "tiny_model.py").write_text(source.lstrip())
    version = "".join(filter(str.isdigit, folder.name)) or "1"
    return ModelVersion("tiny", version, str(folder), digest=folder_digest(folder))


class DeploymentTargetContract:
    """Subclass it as ``TestMine(DeploymentTargetContract)`` in a module that has the three fixtures.

    The class shares one endpoint with the revisions ``v1`` and ``v2``, so ``target`` and ``models`` are class-scoped
    or wider.
    """

    @pytest.fixture(scope="class")
    @classmethod
    def endpoint(cls, target: DeploymentTarget, models: tuple[ModelVersion, ...]) -> str:
        """Give an endpoint with ``v1`` and ``v2``."""
        name = f"contract-{uuid.uuid4().hex[:8]}"
        target.deploy(models[0], name, revision="v1")
        target.deploy(models[1], name, revision="v2")
        return name

    @pytest.fixture(autouse=True)
    def _v1_serves(self, target: DeploymentTarget, endpoint: str) -> None:
        """Begin each test with ``v2`` wholly rolled out before, and ``v1`` serving."""
        target.shift(endpoint, {"v2": 100})
        target.shift(endpoint, {"v1": 100})

    def test_it_is_a_deployment_target(self, target: DeploymentTarget) -> None:
        """It has every verb of the contract."""
        assert isinstance(target, DeploymentTarget)

    def test_only_the_first_revision_gets_traffic_by_itself(
        self, target: DeploymentTarget, models: tuple[ModelVersion, ...]
    ) -> None:
        """The first revision serves at once; the second is ready and waits."""
        name = f"contract-{uuid.uuid4().hex[:8]}"
        assert target.deploy(models[0], name, revision="v1").traffic == {"v1": 100.0}
        status = target.deploy(models[1], name, revision="v2")
        assert status.traffic == {"v1": 100.0}
        assert [(r.revision, r.state, r.version) for r in status.revisions] == [
            ("v1", RevisionState.READY, models[0].version),
            ("v2", RevisionState.READY, models[1].version),
        ]
        assert name in target.endpoints()

    def test_a_revision_names_the_files_that_serve(
        self, target: DeploymentTarget, endpoint: str, models: tuple[ModelVersion, ...]
    ) -> None:
        """The status holds the digest of the files, so that it leads back to the registered version."""
        assert [r.digest for r in target.status(endpoint).revisions] == [models[0].digest, models[1].digest]

    def test_deploying_twice_is_deploying_once(
        self, target: DeploymentTarget, endpoint: str, models: tuple[ModelVersion, ...]
    ) -> None:
        """A retry with the same files changes nothing, traffic included."""
        before = target.status(endpoint)
        assert target.deploy(models[0], endpoint, revision="v1") == before

    def test_a_name_is_not_given_to_other_files(
        self, target: DeploymentTarget, endpoint: str, models: tuple[ModelVersion, ...]
    ) -> None:
        """Other files under the name of a revision are refused, and it serves on."""
        before = target.status(endpoint)
        with pytest.raises(ConflictError, match="v1"):
            target.deploy(models[1], endpoint, revision="v1")
        assert target.status(endpoint) == before

    def test_a_revision_that_never_gets_ready_leaves_all_as_it_was(
        self, target: DeploymentTarget, endpoint: str, models: tuple[ModelVersion, ...]
    ) -> None:
        """The error names the revision and why; the traffic is untouched and the failed revision gone."""
        before = target.status(endpoint)
        with pytest.raises(JobFailedError, match="v3"):
            target.deploy(models[2], endpoint, revision="v3")
        assert target.status(endpoint) == before

    def test_files_that_differ_from_their_digest_are_refused(
        self, target: DeploymentTarget, endpoint: str, models: tuple[ModelVersion, ...]
    ) -> None:
        """What was registered is what serves, or nothing new does."""
        before = target.status(endpoint)
        with pytest.raises(IntegrityError):
            target.deploy(replace(models[0], digest="sha256:" + "0" * 64), endpoint, revision="v4")
        assert target.status(endpoint) == before

    def test_a_failed_first_deployment_leaves_no_endpoint(
        self, target: DeploymentTarget, models: tuple[ModelVersion, ...]
    ) -> None:
        """An endpoint that never had a good revision is not there afterwards."""
        name = f"contract-{uuid.uuid4().hex[:8]}"
        with pytest.raises(JobFailedError):
            target.deploy(models[2], name, revision="v3")
        assert name not in target.endpoints()

    def test_a_shift_is_the_truth(self, target: DeploymentTarget, endpoint: str) -> None:
        """What a shift returns is what a status reads, and a second one changes nothing."""
        wanted = {"v1": 87.5, "v2": 12.5}
        assert target.shift(endpoint, wanted).traffic == wanted
        assert target.shift(endpoint, wanted) == target.status(endpoint)

    @pytest.mark.parametrize(
        ("traffic", "error"),
        [({"v1": 60, "v2": 30}, InvalidSpecError), ({"v1": 50, "v9": 50}, NotFoundError), ({}, InvalidSpecError)],
        ids=["sum", "unknown", "empty"],
    )
    def test_a_wrong_shift_changes_nothing(
        self, target: DeploymentTarget, endpoint: str, traffic: dict[str, float], error: type[Exception]
    ) -> None:
        """Percents that do not sum to 100 and unknown revisions are refused."""
        with pytest.raises(error):
            target.shift(endpoint, traffic)
        assert target.status(endpoint).traffic == {"v1": 100.0}

    def test_a_rollback_in_a_canary_gives_all_to_the_old_revision(
        self, target: DeploymentTarget, endpoint: str
    ) -> None:
        """However far the canary came, the old revision gets everything back, and a second call changes nothing."""
        target.shift(endpoint, {"v1": 20, "v2": 80})
        assert target.rollback(endpoint).traffic == {"v1": 100.0}
        assert target.rollback(endpoint).traffic == {"v1": 100.0}

    def test_a_rollback_after_a_full_rollout_goes_to_the_one_before(
        self, target: DeploymentTarget, endpoint: str
    ) -> None:
        """The revision wholly rolled out before is remembered as ``previous``, and a rollback goes there."""
        target.shift(endpoint, {"v1": 50, "v2": 50})
        assert target.shift(endpoint, {"v2": 100}).previous == "v1"
        assert target.rollback(endpoint).traffic == {"v1": 100.0}

    def test_a_revision_with_traffic_is_not_removed(
        self, target: DeploymentTarget, models: tuple[ModelVersion, ...]
    ) -> None:
        """It is refused while it has traffic, removed once it has none, and removed again without effect."""
        name = f"contract-{uuid.uuid4().hex[:8]}"
        target.deploy(models[0], name, revision="v1")
        target.deploy(models[1], name, revision="v2")
        with pytest.raises(InvalidSpecError, match="v1"):
            target.remove(name, "v1")
        assert target.remove(name, "v2").find("v2") is None
        assert target.remove(name, "v2").traffic == {"v1": 100.0}

    def test_an_unknown_endpoint_is_named_with_those_there_are(self, target: DeploymentTarget, endpoint: str) -> None:
        """The message names a close endpoint."""
        with pytest.raises(NotFoundError, match=endpoint):
            target.status(endpoint + "x")

    def test_metrics_count_each_request_once_in_its_window(
        self, target: DeploymentTarget, endpoint: str, ask: Ask
    ) -> None:
        """Requests are counted for the revision that answered, within the window and not outside of it."""
        status = target.status(endpoint)
        time.sleep(0.05)
        since = time.time()
        for _ in range(5):
            ask(status)
        until = time.time()
        found = target.metrics(endpoint, since, until)
        assert {name: seen.requests for name, seen in found.items() if seen.requests} == {"v1": 5}
        assert found["v1"].errors == 0
        assert len(found["v1"].predictions) == 5
        assert not any(seen.requests for seen in target.metrics(endpoint, until + 1, until + 2).values())
