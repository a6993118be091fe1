"""A connection of Airflow's own Google provider leads our backend to Vertex AI, and shows no key on the way."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import (
    ConflictError,
    InvalidSpecError,
    MissingExtraError,
    MlopsError,
    NotFoundError,
    PlatformUnavailableError,
    QuotaExceededError,
)
from airflow_mlops.platforms.gcp import CUSTOM_JOBS, GcpApi
from airflow_mlops.platforms.gcp_access import credentials
from airflow_mlops.platforms.gcp_answers import ThrottledError, meaning, refusal
from airflow_mlops.testing.vertex import PROJECT, REGION, VertexFake, vertex_fake

ACCOUNT = "trainer@acme-ml.iam.gserviceaccount.com"


@pytest.fixture(scope="module")
def fake() -> Iterator[VertexFake]:
    """Run Vertex AI."""
    with vertex_fake() as found:
        yield found


@pytest.fixture(scope="module")
def key() -> dict[str, str]:
    """Give the key of a service account, as the console writes it."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return {
        "type": "service_account",
        "project_id": "acme-key",
        "private_key_id": "1",
        "private_key": pem,
        "client_email": ACCOUNT,
        "token_uri": "https://oauth2.googleapis.com/token",
    }


def api(**extra: Any) -> GcpApi:
    """Build the API from extras."""
    return GcpApi(ConnectionInfo("google", extra=extra))


def test_what_the_official_form_writes_is_taken(fake: VertexFake) -> None:
    """Empty fields and those that change nothing do not refuse the connection; the old prefix is understood."""
    form = {
        "key_path": "",
        "keyfile_dict": "",
        "credential_config_file": "",
        "scope": "https://www.googleapis.com/auth/cloud-platform",
        "key_secret_name": "",
        "key_secret_project_id": "",
        "impersonation_chain": "",
        "idp_issuer_url": "",
        "client_id": "",
        "client_secret": "",
        "idp_extra_parameters": "",
    }
    old = {f"extra__google_cloud_platform__{name}": value for name, value in form.items()}
    for extras in (form, old):
        found = GcpApi(fake.connection(**extras))
        assert found.scope == f"{PROJECT}/{REGION}"
        assert list(found.jobs(CUSTOM_JOBS, found.scope, "")) == []


def test_a_key_is_taken_from_file_text_or_mapping(key: dict[str, str], tmp_path: Path) -> None:
    """All ways lead to the same account, and its project is used where the connection names none."""
    path = tmp_path / "key.json"
    path.write_text(json.dumps(key))
    for extras in ({"key_path": str(path)}, {"keyfile_dict": json.dumps(key)}, {"keyfile_dict": key}):
        found, project = credentials("google", extras)
        assert (found.service_account_email, project) == (ACCOUNT, "acme-key")
        assert api(region="europe-west4", **extras).scope == "acme-key/europe-west4"
        assert api(region="europe-west4", project="other", **extras).scope == "other/europe-west4"


def test_an_impersonation_chain_ends_at_its_last_account(key: dict[str, str]) -> None:
    """As in the official provider: text with commas or a list, the last account is who we are."""
    for chain in ("first@acme.example, last@acme.example", ["first@acme.example", "last@acme.example"]):
        found, _ = credentials("google", {"keyfile_dict": key, "impersonation_chain": chain})
        assert found.service_account_email == "last@acme.example"


def test_a_workload_identity_is_taken_from_file_or_text(tmp_path: Path) -> None:
    """A credential configuration holds no key: it says where a token is found."""
    token = tmp_path / "token"
    token.write_text("token")
    config = json.dumps(
        {
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": "https://sts.googleapis.com/v1/token",
            "credential_source": {"file": str(token)},
        }
    )
    path = tmp_path / "config.json"
    path.write_text(config)
    for given in (str(path), config):
        found, _ = credentials("google", {"credential_config_file": given, "scope": "a,b"})
        assert type(found).__module__ == "google.auth.identity_pool"


def test_a_broken_key_is_not_shown(key: dict[str, str]) -> None:
    """The error names the extra and the kind of fault; no part of the key, also not in what caused it."""
    broken = {**key, "private_key": "-----BEGIN PRIVATE KEY-----\nplanted-secret\n-----END PRIVATE KEY-----"}
    for given in (broken, '{"private_key": "planted-secret'):
        with pytest.raises(InvalidSpecError, match="keyfile_dict") as caught:
            credentials("google", {"keyfile_dict": given})
        assert "planted-secret" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_what_cannot_be_honoured_is_refused() -> None:
    """An unknown extra, two keys, and the client credentials grant are named."""
    for extras, told in (
        ({"regoin": "x"}, "did you mean 'region'"),
        ({"key_path": "a", "keyfile_dict": "{}"}, "key_path and keyfile_dict"),
        ({"idp_issuer_url": "https://idp.example"}, "idp_issuer_url"),
    ):
        with pytest.raises(InvalidSpecError, match=told):
            api(**extras)
    with pytest.raises(InvalidSpecError, match="region"):
        _ = api(project="acme", is_anonymous=True).scope
    with pytest.raises(InvalidSpecError, match="project"):
        _ = api(region="x", is_anonymous=True).scope


def test_a_token_goes_to_google_alone(key: dict[str, str]) -> None:
    """An address elsewhere, or without TLS, is refused unless there is no token to send."""
    private = {"aiplatform": "https://europe-west4-aiplatform-mine.p.googleapis.com"}
    api(keyfile_dict=key, endpoints=private)
    for wrong in ("https://googleapis.com.evil.example", "http://x.googleapis.com", "https://evilgoogleapis.com"):
        with pytest.raises(InvalidSpecError, match=r"'storage'.*token"):
            api(keyfile_dict=key, endpoints={"storage": wrong})
    api(is_anonymous=True, endpoints={"storage": "http://127.0.0.1:1"})
    with pytest.raises(InvalidSpecError, match="mapping"):
        api(is_anonymous=True, endpoints={"vertex": "http://127.0.0.1:1"})


@pytest.mark.parametrize(
    ("code", "message", "error"),
    [
        (400, "bad", InvalidSpecError),
        (401, "who", InvalidSpecError),
        (403, "denied", InvalidSpecError),
        (404, "no such job", NotFoundError),
        (409, "exists", ConflictError),
        (429, "Quota exceeded for quota metric 'Online requests'", ThrottledError),
        (429, "The following quota metrics exceed quota limits: gpus", QuotaExceededError),
        (500, "oops", PlatformUnavailableError),
        (503, "away", PlatformUnavailableError),
    ],
)
def test_answers_become_our_errors(code: int, message: str, error: type[MlopsError]) -> None:
    """Each says what the caller may do, in the server's words and without credentials in addresses."""
    found = refusal("Google Cloud, get", code, f"{message} at https://user:password@host/")
    assert type(found) is error
    assert message in str(found)
    assert "password" not in str(found)


def test_tokens_that_cannot_be_had_are_told_apart() -> None:
    """A refused account is for a person; a token server that is away is not."""

    class RefreshError(Exception):
        def __init__(self, *, retryable: bool) -> None:
            super().__init__("no token")
            self.retryable = retryable

    assert isinstance(meaning("Google Cloud", "google", RefreshError(retryable=False)), InvalidSpecError)
    assert isinstance(meaning("Google Cloud", "google", RefreshError(retryable=True)), PlatformUnavailableError)


def test_nothing_of_google_is_imported_before_it_is_needed() -> None:
    """Building the backend from a connection loads none of Google's packages: that takes over a second."""
    code = (
        "import sys\n"
        "from airflow_mlops.core.connection import ConnectionInfo\n"
        "from airflow_mlops.training.backends.vertex import VertexBackend\n"
        "from airflow_mlops.training.pipelines.vertex import VertexPipelines\n"
        "info = ConnectionInfo('google', extra={'region': 'x', 'project': 'y'})\n"
        "VertexBackend.from_connection(info), VertexPipelines.from_connection(info)\n"
        "heavy = ('google.auth', 'google.protobuf', 'google.cloud.aiplatform_v1', 'grpc', 'requests')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Google's client the error says what to install."""
    monkeypatch.setitem(sys.modules, "google.auth", None)
    with pytest.raises(MissingExtraError, match=r"airflow-mlops\[vertex\]"):
        credentials("google", {"is_anonymous": True})
