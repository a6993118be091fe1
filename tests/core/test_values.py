"""The values every room passes around: records, decisions, names, connections, errors."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.decisions import GateDecision, Reason, Verdict
from airflow_mlops.core.entrypoints import TRAINING_BACKENDS, load_plugin
from airflow_mlops.core.errors import (
    NEVER_RETRY,
    RETRY,
    GateFailedError,
    InvalidSpecError,
    JobTimeoutError,
    MissingExtraError,
    MlopsError,
    UnknownPluginError,
    UnsupportedFeatureError,
    redact,
)
from airflow_mlops.core.extras import extra
from airflow_mlops.core.features import Feature, refuse_lacking
from airflow_mlops.core.identity import TaskIdentity, stable_name
from airflow_mlops.core.refs import DataVersion, ModelVersion
from airflow_mlops.training.contract import JobState, Resources, TrainingSpec

texts = st.text(max_size=20)
versions = st.builds(DataVersion, texts, texts, texts, texts, st.integers(0), st.integers(0), texts)
specs = st.builds(
    TrainingSpec,
    command=st.lists(texts, max_size=3).map(tuple),
    env=st.dictionaries(texts, texts, max_size=3),
    inputs=st.dictionaries(texts, versions, max_size=2),
    parameters=st.dictionaries(texts, st.one_of(texts, st.integers(), st.booleans()), max_size=3),
    resources=st.builds(Resources, cpus=st.none() | st.floats(0.1, 64), gpus=st.integers(0, 8)),
    max_runtime=st.none() | st.floats(1, 1e6),
)
reasons = st.builds(Reason, texts, st.sampled_from(Verdict), st.integers(), st.integers(), texts)
identities = st.builds(TaskIdentity, texts, texts, texts, st.integers(-1, 100), texts)


@given(specs)
def test_a_record_comes_back_from_json_as_it_was(spec: TrainingSpec) -> None:
    """Whatever a record holds, nested records, tuples and enums too, survives the way through JSON."""
    assert TrainingSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@given(specs, texts)
def test_two_specs_have_one_digest_only_if_they_are_equal(spec: TrainingSpec, image: str) -> None:
    """The digest of a spec is that of its values, and a changed value changes it."""
    other = replace(spec, image=image)
    assert (spec.digest() == other.digest()) == (spec == other)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"comand": ["a"]}, "did you mean 'command'"),
        ({}, "command"),
        ("text", "built from a mapping, got 'text'"),
        ({"command": ["a"], "inputs": 5}, "TrainingSpec cannot be built"),
        ({"command": ["a"], "resources": {"cpu": 1}}, "Resources has no field 'cpu': did you mean 'cpus'"),
    ],
)
def test_what_is_no_record_is_refused_by_name(value: Any, says: str) -> None:
    """A typo, a missing field or a value of the wrong shape is an InvalidSpecError that says which."""
    with pytest.raises(InvalidSpecError, match=re.escape(says)):
        TrainingSpec.from_dict(value)


def test_an_unknown_word_of_an_enum_is_refused() -> None:
    """A verdict that does not exist never becomes one that does."""
    with pytest.raises(InvalidSpecError, match="maybe"):
        GateDecision.from_dict({"verdict": "maybe"})


@given(st.lists(reasons, max_size=5))
def test_one_fail_fails_and_no_evidence_is_inconclusive(found: list[Reason]) -> None:
    """FAIL outweighs INCONCLUSIVE, which outweighs PASS; without any rule nothing passes."""
    verdicts = [reason.verdict for reason in found]
    decision = GateDecision.of(found)
    assert decision.passed == (bool(verdicts) and set(verdicts) == {Verdict.PASS})
    assert (decision.verdict is Verdict.FAIL) == (Verdict.FAIL in verdicts)


def test_a_summary_tells_what_made_the_verdict() -> None:
    """A failure names the rules that failed, and neither those that passed nor those that were left open."""
    good = Reason("floor", Verdict.PASS, 0.8, 0.7, "AUC is fine.")
    bad = Reason("gain", Verdict.FAIL, -0.1, 0, "It is worse.")
    unclear = Reason("latency", Verdict.INCONCLUSIVE, 3, 50, "Too few.")
    assert GateDecision.of([unclear, good, bad]).summary() == "FAIL: It is worse."
    assert GateDecision.of([good, unclear]).summary() == "INCONCLUSIVE: Too few."
    assert GateDecision.of([good]).summary() == "PASS: AUC is fine."


@given(identities, identities, st.integers(0, 5), st.integers(0, 5))
def test_names_are_stable_distinct_and_safe(one: TaskIdentity, other: TaskIdentity, life: int, attempt: int) -> None:
    """One task has one name, another task another, and every name fits Kubernetes and SageMaker."""
    name = stable_name(one, generation=life, attempt=attempt)
    assert name == stable_name(one, generation=life, attempt=attempt)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
    assert len(name) <= 35
    assert (name == stable_name(other, generation=life, attempt=attempt)) == (one == other)
    assert name != stable_name(one, generation=life + 1, attempt=attempt)


def connection(**fields: Any) -> Any:
    """Return what Airflow's Connection looks like from outside."""
    empty = {"conn_id": "c", "host": None, "port": None, "schema": None, "login": None, "password": None}
    return SimpleNamespace(**{**empty, "extra_dejson": {}, **fields})


def test_a_connection_never_shows_its_secrets() -> None:
    """Neither the password nor the extras are in the representation."""
    info = ConnectionInfo.of(connection(password="hunter2", extra_dejson={"token": "hunter3"}))
    assert "hunter" not in repr(info)


def test_an_unknown_extra_is_refused_with_the_closest_one() -> None:
    """A typo in an extra is an error: in silence it could switch something off."""
    info = ConnectionInfo.of(connection(extra_dejson={"verfiy": False}))
    with pytest.raises(InvalidSpecError, match="did you mean 'verify'"):
        info.options(["verify", "timeout"])


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "h"}, "http://h:80"),
        ({"host": "h", "schema": "https", "port": 5}, "https://h:5"),
        ({"host": "https://h/"}, "https://h"),
        ({"host": "http://h", "port": 7}, "http://h:7"),
    ],
)
def test_an_address_is_made_of_its_parts(fields: dict[str, Any], url: str) -> None:
    """Scheme and port may be in the host or in fields of their own."""
    assert ConnectionInfo.of(connection(**fields)).base_url(80) == url


def test_a_connection_without_a_host_says_so() -> None:
    """The error names the connection and what to set."""
    with pytest.raises(InvalidSpecError, match="'c' has no host"):
        ConnectionInfo.of(connection()).base_url()


def test_credentials_in_the_host_are_refused_unseen() -> None:
    """A password that was written into the host is not used and not shown: it belongs into its own field."""
    with pytest.raises(InvalidSpecError, match="holds credentials") as refused:
        ConnectionInfo.of(connection(host="https://me:hunter2@h")).base_url()
    assert "hunter2" not in str(refused.value)


def test_credentials_are_taken_out_of_addresses() -> None:
    """User and password of every address in a text are replaced; the rest stays readable."""
    assert redact("clone https://me:pa:ss@h/x and s3://k@b failed") == "clone https://***@h/x and s3://***@b failed"


def test_every_error_is_either_retried_or_not() -> None:
    """No error class is in both lists, and every one belongs to one, but for timeouts: those are the task's setting."""

    def leaves(kind: type[Exception]) -> set[type[Exception]]:
        found = {leaf for child in kind.__subclasses__() for leaf in leaves(child)}
        return found or {kind}

    ours = {kind for kind in leaves(MlopsError) if kind.__module__.startswith("airflow_mlops.core")} - {JobTimeoutError}
    assert all(issubclass(kind, NEVER_RETRY) != issubclass(kind, RETRY) for kind in ours)


def test_a_gate_error_carries_its_decision() -> None:
    """Who catches it can look at every reason."""
    decision = GateDecision.of([Reason("r", Verdict.FAIL, 1, 2, "No.")])
    error = GateFailedError(decision, "The gate")
    assert (error.decision, str(error)) == (decision, "The gate: FAIL: No.")


def test_an_unknown_plugin_lists_what_is_installed() -> None:
    """The error names the closest backend and all that there are."""
    with pytest.raises(UnknownPluginError, match=r"did you mean 'local'.*Installed: .*local"):
        load_plugin(TRAINING_BACKENDS, "locl")


def test_a_missing_package_names_its_extra() -> None:
    """The error says what to install."""
    with pytest.raises(MissingExtraError, match=r"airflow-mlops\[dvc\]"), extra("dvc"):
        import no_such_package_here  # noqa: F401


def test_a_feature_a_backend_lacks_is_refused_with_its_reason() -> None:
    """The error names plugin, field and reason; what is not used does not matter."""
    refuse_lacking("local", {Feature.SPOT: "it has no spot machines"}, [Feature.GPUS])
    with pytest.raises(UnsupportedFeatureError, match="'local' cannot honour 'spot': it has no spot machines"):
        refuse_lacking("local", {Feature.SPOT: "it has no spot machines"}, [Feature.SPOT])


def test_an_unknown_state_is_not_the_end() -> None:
    """UNKNOWN is looked at again; only real ends are ends."""
    assert {state for state in JobState if not state.terminal} == {JobState.PENDING, JobState.RUNNING, JobState.UNKNOWN}


@given(versions)
def test_a_data_version_has_an_address_with_its_digest(version: DataVersion) -> None:
    """Two versions of one path have different addresses if their bytes differ."""
    assert version.uri.endswith(f"@{version.digest}")


def test_a_model_version_travels() -> None:
    """Aliases come back as a tuple, tags as a dict."""
    model = ModelVersion("m", "1", "models:/m-1", aliases=("champion",), tags={"a": "b"})
    assert ModelVersion.from_dict(model.to_dict()) == model
