"""The store over a real S3 server that checks signatures."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_mlops.core.errors import IntegrityError, InvalidSpecError, PlatformUnavailableError
from airflow_mlops.data.stores.dvc import DvcStore
from airflow_mlops.testing.git_dvc import GitDvcRepository

_KEY, _SECRET = "the-key", "the-s3cr3t"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of an S3 server with the bucket ``data``."""
    folder = tmp_path_factory.mktemp("s3")
    identity = {
        "name": "ci",
        "credentials": [{"accessKey": _KEY, "secretKey": _SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
    ports = dict(zip((*names, "s3.port", "s3.port.grpc"), _free_ports(8), strict=True))
    command = [str(Path(sys.executable).with_name("weed")), "server", f"-dir={folder}", "-ip=127.0.0.1"]
    command += ["-ip.bind=127.0.0.1", "-master.telemetry=false", "-s3", f"-s3.config={folder / 's3.json'}"]
    command += ["-volume.max=5", *(f"-{name}={port}" for name, port in ports.items())]
    address = f"http://127.0.0.1:{ports['s3.port']}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            _make_bucket(address, process, folder / "log")
            yield address
        finally:
            process.kill()  # its graceful end takes longer than all of these tests
            process.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def _make_bucket(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        endpoint_url=address,
        aws_access_key_id=_KEY,
        aws_secret_access_key=_SECRET,
        region_name="us-east-1",
    )
    for _ in range(240):
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            client.create_bucket(Bucket="data")
            client.put_object(Bucket="data", Key="ready", Body=b"yes")
        except (BotoCoreError, ClientError):
            time.sleep(0.25)
        else:
            return
    raise AssertionError(log.read_text()[-2000:])


def _store(repository: GitDvcRepository, workdir: Path, endpoint: str, **options: str) -> DvcStore:
    chosen = {"access_key_id": _KEY, "secret_access_key": _SECRET, "endpointurl": endpoint, "region": "us-east-1"}
    return DvcStore(repository.address, workdir=workdir, remote_options={**chosen, **options})


@pytest.fixture
def s3_repository(tmp_path: Path) -> GitDvcRepository:
    """Give a repository whose remote is in the bucket."""
    return GitDvcRepository(tmp_path / "server", remote_url=f"s3://data/{tmp_path.name}")


@pytest.mark.slow
def test_there_and_back(s3_repository: GitDvcRepository, endpoint: str, folder: Path, tmp_path: Path) -> None:
    """What was kept on one worker comes back on another; the keys are in no file and in no version."""
    version = _store(s3_repository, tmp_path / "one", endpoint).snapshot(folder, "data/flights", message="m", tag="v1")
    other = _store(s3_repository, tmp_path / "two", endpoint)
    assert other.resolve("data/flights", "v1") == version
    assert (other.materialise(version) / "b.csv").read_text() == "x\n2\n"
    assert _SECRET not in repr(version) + repr(other)
    kept = [path for path in (tmp_path / "two").rglob("*") if path.is_file()]
    assert [path for path in kept if _SECRET.encode() in path.read_bytes()] == []


@pytest.mark.slow
def test_a_lost_object_is_named(s3_repository: GitDvcRepository, endpoint: str, folder: Path, tmp_path: Path) -> None:
    """An object that vanished from the bucket is missing, not unavailable."""
    import boto3

    version = _store(s3_repository, tmp_path / "one", endpoint).snapshot(folder, "data/flights", message="m")
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=_KEY,
        aws_secret_access_key=_SECRET,
        region_name="us-east-1",
    )
    listed = client.list_objects_v2(Bucket="data", Prefix=f"{tmp_path.name}/files")["Contents"]
    lost = next(item["Key"] for item in listed if not item["Key"].endswith(".dir"))
    client.delete_object(Bucket="data", Key=lost)
    with pytest.raises(IntegrityError, match=r"1 of 2 objects of 'data/flights'.*\.csv"):
        _store(s3_repository, tmp_path / "two", endpoint).materialise(version)


@pytest.mark.slow
def test_wrong_keys_are_final(s3_repository: GitDvcRepository, endpoint: str, folder: Path, tmp_path: Path) -> None:
    """A wrong key is refused by the server, not tried again, and not shown."""
    store = _store(s3_repository, tmp_path / "one", endpoint, secret_access_key="wr0ng-s3cr3t")
    with pytest.raises(InvalidSpecError, match="options and rights") as caught:
        store.snapshot(folder, "data/flights", message="m")
    assert "wr0ng" not in str(caught.value)


@pytest.mark.slow
def test_a_server_that_is_away_is_tried_again(s3_repository: GitDvcRepository, folder: Path, tmp_path: Path) -> None:
    """A remote that does not answer is worth another try; nothing was committed."""
    store = _store(s3_repository, tmp_path / "one", "http://127.0.0.1:9")
    before = store.git.commit_of("main")
    with pytest.raises(PlatformUnavailableError):
        store.snapshot(folder, "data/flights", message="m")
    assert store.git.commit_of("main") == before
