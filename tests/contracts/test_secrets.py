"""Only references reach a platform: jobs run with planted secrets, then everything that was kept is read back.

The values are in the worker's environment, in a connection and in the platform's own store of secrets, which is the one
place that is not read back. The program in the job compares digests, so a value that did not arrive fails the test too.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import secrets
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import InvalidSpecError, JobFailedError
from airflow_mlops.hooks.training import TrainingHook
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.platforms.aws import Aws
from airflow_mlops.platforms.azure_ml import AzureMLClient
from airflow_mlops.platforms.kubernetes import EVENTS, JOBS, PODS, SERVICES, KubernetesApi
from airflow_mlops.testing.azureml import azureml_fake
from airflow_mlops.testing.kubernetes import kubernetes_fake
from airflow_mlops.testing.kubernetes.kinds import SECRETS
from airflow_mlops.testing.kubernetes.trainer import CLUSTER_RUNTIMES, TRAINER_KINDS, training_runtime
from airflow_mlops.testing.sagemaker import sagemaker_fake
from airflow_mlops.testing.task_runner import DagRunMemory, TaskRun, run_task, run_trigger
from airflow_mlops.testing.vertex import PROJECT, REGION, vertex_fake
from airflow_mlops.training.backends.azureml_marks import TAG
from airflow_mlops.training.backends.kubeflow import TRAIN_JOBS
from airflow_mlops.training.backends.sagemaker_start import PACK
from airflow_mlops.training.contract import HasLog

Json = dict[str, Any]

PROGRAM = """
import base64, hashlib, json, os, pathlib, sys, time, urllib.request
gate, wanted = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
seen = {name: hashlib.sha256(os.environ.get(name, "").encode()).hexdigest() for name in wanted}
if wrong := [name for name in wanted if seen[name] != wanted[name]]:
    sys.exit(f"did not come through: {wrong}")
print("all came through to", os.environ["MARK"], flush=True)
gate.with_suffix(".reached").touch()
while not gate.exists():
    time.sleep(0.05)
who = os.environ["MLFLOW_TRACKING_USERNAME"] + ":" + os.environ["MLFLOW_TRACKING_PASSWORD"]
point = {"run_id": os.environ["MLFLOW_RUN_ID"], "key": "auc", "value": 0.9, "timestamp": 1}
headers = {"Content-Type": "application/json", "Authorization": "Basic " + base64.b64encode(who.encode()).decode()}
where = os.environ["MLFLOW_TRACKING_URI"] + "/api/2.0/mlflow/runs/log-metric"
urllib.request.urlopen(urllib.request.Request(where, json.dumps(point).encode(), headers)).read()
pathlib.Path(os.environ["MLOPS_OUTPUT"]).write_text(json.dumps({"metrics": {"auc": 0.9}}))
sys.exit("ValueError: no rows" if "FAILS" in os.environ else 0)
"""
"""Sees its secrets, waits at a gate, logs to its run with the server's password, reports, and fails if told to."""


class Planted:
    """Values that stand nowhere else; a shell, a template or YAML would change them if they got into its hands."""

    def __init__(self) -> None:
        self.marks = {name: f"{name}-{secrets.token_hex(12)}" for name in ("licence", "api_key", "password")}
        self.licence = f"{self.marks['licence']} $HOME $(HOME) 'it' \"is\" {{{{ ds }}}} `x` ü"
        self.api_key = f"{self.marks['api_key']}\nsecond $line \\n"
        self.password = self.marks["password"]

    def within(self, texts: dict[str, str]) -> list[tuple[str, str]]:
        """Return which value is in which text, as it is or in base64 at any offset."""
        return [
            (name, where)
            for where, text in texts.items()
            for name, mark in self.marks.items()
            if any(form in text for form in forms(mark))
        ]


def forms(mark: str) -> list[str]:
    """Return a text as it is, and what of its base64 does not depend on what stands around it."""
    padded = [base64.b64encode(b"\0" * shift + mark.encode()).decode() for shift in range(3)]
    return [mark, *(form[4:-4] for form in padded)]


@dataclass
class Place:
    """Where jobs run.

    :param connection: as Airflow writes it
    :param arguments: what the operator needs here
    :param secret_env: the references that reach the planted values here
    :param told: gives all that the platform keeps and tells, by what it is
    """

    connection: Json
    arguments: Json
    secret_env: dict[str, str]
    told: Callable[[], dict[str, Any]]


Platform = Callable[[Path, Planted], AbstractContextManager[Place]]


@contextmanager
def local(folder: Path, planted: Planted) -> Iterator[Place]:
    """Keep jobs in a folder; all that there is are the worker's variables."""
    jobs = folder / "jobs"
    connection = {"conn_type": "mlops_local", "extra": {"workdir": str(jobs)}}
    own = {"LICENCE": "PLANTED_LICENCE", "API_KEY": "PLANTED_API_KEY"}
    yield Place(connection, {}, own, lambda: files(jobs))


@contextmanager
def kubernetes(folder: Path, planted: Planted, *kinds: Any) -> Iterator[Place]:
    """Run a cluster that has a Secret; variables of the worker work as well."""
    with kubernetes_fake(*kinds) as fake:
        if kinds:
            fake.create(CLUSTER_RUNTIMES, training_runtime())
        value = base64.b64encode(planted.api_key.encode()).decode()
        fake.create(SECRETS, {"metadata": {"name": "team"}, "data": {"api-key": value}}, "default")
        connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(fake.kubeconfig)}}

        def told() -> dict[str, Any]:
            api = KubernetesApi(info("place", connection))
            kept = {kind.plural: api.list(kind, "default")[0] for kind in (JOBS, PODS, EVENTS, SERVICES)}
            names = [pod["metadata"]["name"] for pod in kept["pods"]]
            logs = {name: b"".join(api.log("default", name)).decode() for name in names}
            return kept | logs | ({"trainjobs": api.list(TRAIN_JOBS, "default")[0]} if kinds else {})

        secret_env = {"LICENCE": "PLANTED_LICENCE", "API_KEY": "team/api-key"}
        yield Place(connection, {"image": "train:1"}, secret_env, told)


@contextmanager
def kubeflow(folder: Path, planted: Planted) -> Iterator[Place]:
    """Run a cluster with Kubeflow Trainer."""
    with kubernetes(folder, planted, *TRAINER_KINDS) as place:
        yield place


@contextmanager
def sagemaker(folder: Path, planted: Planted) -> Iterator[Place]:
    """Run an account whose Secrets Manager has the values: one of them in a JSON object."""
    with sagemaker_fake() as fake:
        kept = {"prod/licence": planted.licence, "prod/api": planted.api_key}
        fake.world.vault.update(kept, mlflow=json.dumps({"user": "team", "password": planted.password}))

        def told() -> dict[str, Any]:
            aws = Aws(fake.connection(), ("execution_role", "output_path"))
            ours = {"Filters": [{"Name": "TrainingJobName", "Operator": "Contains", "Value": "aml-"}]}
            query = {"Resource": "TrainingJob", "SearchExpression": ours}
            found = [one for page in aws.pages("sagemaker", "search", "Results", **query) for one in page]
            names = [one["TrainingJob"]["TrainingJobName"] for one in found]
            described = [aws.call("sagemaker", "describe_training_job", TrainingJobName=name) for name in names]
            group = {"logGroupName": "/aws/sagemaker/TrainingJobs"}
            logs = aws.call("logs", "filter_log_events", **group)["events"] if names else []
            packed = [unpacked(job["HyperParameters"]) for job in described]
            return {"search": found, "describe": described, "packed": packed, "logs": logs} | files(fake.world.folder)

        secret_env = {
            "LICENCE": "secretsmanager:prod/licence",
            "API_KEY": "secretsmanager:prod/api",
            "MLFLOW_TRACKING_USERNAME": "secretsmanager:mlflow#user",
            "MLFLOW_TRACKING_PASSWORD": "secretsmanager:mlflow#password",
        }
        yield Place(fake.airflow_connection(), {"image": "train:1"}, secret_env, told)


@contextmanager
def vertex(folder: Path, planted: Planted) -> Iterator[Place]:
    """Run Vertex AI with a project whose Secret Manager has the values."""
    with vertex_fake() as fake:
        for name, value in vault(planted).items():
            fake.services.keep_secret(PROJECT, name, value)
        connection = {"conn_type": "google_cloud_platform", "extra": fake.extras()}

        def told() -> dict[str, Any]:
            api = f"{fake.address}/v1/projects/{PROJECT}/locations/{REGION}"
            jobs = {kind: httpx.get(f"{api}/{kind}").json() for kind in ("customJobs", "pipelineJobs")}
            return jobs | files(fake.buckets)

        secret_env = {name: f"{secret}/latest" for name, secret in VAULT.items()}
        yield Place(connection, {"image": "train:1"}, secret_env, told)


@contextmanager
def azureml(folder: Path, planted: Planted) -> Iterator[Place]:
    """Run a workspace with a key vault that has the values."""
    with azureml_fake() as fake:
        fake.vault.update(vault(planted))

        def told() -> dict[str, Any]:
            with AzureMLClient(fake.connection()) as client:
                jobs = list(client.jobs("Command", TAG))
                history = [client.details(job) for job in jobs]
                left = [str(client.artifact(job, "outputs/mlops_output.json", 1 << 20)) for job in jobs]
            return {"jobs": jobs, "history": history, "left": left}

        secret_env = {name: f"{fake.address}/secrets/{secret}" for name, secret in VAULT.items()}
        yield Place(fake.airflow_connection(), {"image": "train:1"}, secret_env, told)


PLATFORMS: dict[str, Platform] = {
    "local": local,
    "kubernetes": kubernetes,
    "kubeflow": kubeflow,
    "sagemaker": sagemaker,
    "vertex": vertex,
    "azureml": azureml,
}
VAULT = {
    "LICENCE": "licence",
    "API_KEY": "api-key",
    "MLFLOW_TRACKING_USERNAME": "mlflow-user",
    "MLFLOW_TRACKING_PASSWORD": "mlflow-password",
}
"""Variable -> the secret that has its value, where secrets are plain texts."""


def vault(planted: Planted) -> dict[str, str]:
    """Return the secrets of :data:`VAULT`."""
    values = [planted.licence, planted.api_key, "team", planted.password]
    return dict(zip(VAULT.values(), values, strict=True))


def unpacked(hyperparameters: dict[str, str]) -> str:
    """Return the lines of shell that a training job carries where its own fields are too short for them."""
    pieces = [hyperparameters[key] for key in sorted(hyperparameters) if key.startswith(PACK)]
    return gzip.decompress(base64.b64decode("".join(pieces))).decode()


def info(conn_id: str, connection: Json) -> ConnectionInfo:
    """Return a connection as engines get it."""
    return ConnectionInfo(conn_id, extra=connection["extra"])


def files(folder: Path) -> dict[str, Any]:
    """Return the files below *folder*, those in archives too."""
    found: dict[str, Any] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            found[str(path)] = path.read_text(errors="replace")
            if tarfile.is_tarfile(path):
                with tarfile.open(path) as archive:
                    members = {name: archive.extractfile(name) for name in archive.getnames()}
                    found |= {name: file.read().decode() for name, file in members.items() if file}
    return found


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch, mlflow_server: str) -> Planted:
    """Plant the values in the worker's environment and in the connection of the tracking server."""
    found = Planted()
    monkeypatch.setenv("PLANTED_LICENCE", found.licence)
    monkeypatch.setenv("PLANTED_API_KEY", found.api_key)
    tracking = {"conn_type": "mlflow", "host": mlflow_server, "login": "team", "password": found.password}
    monkeypatch.setenv("AIRFLOW_CONN_TRACKING", json.dumps(tracking))
    return found


@pytest.fixture(params=PLATFORMS)
def backend(request: pytest.FixtureRequest) -> str:
    """Give the name of each platform."""
    return str(request.param)


@pytest.fixture
def place(backend: str, planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Run the platform, with a connection to it."""
    with PLATFORMS[backend](tmp_path, planted) as found:
        monkeypatch.setenv("AIRFLOW_CONN_PLACE", json.dumps(found.connection))
        yield found


def train(backend: str, place: Place, program: list[str], **kwargs: Any) -> TrainModelOperator:
    """Return an operator with a tracking run in an experiment of the platform's."""
    where = {"backend": backend, "conn_id": "place", "poll_interval": 0.2, **place.arguments}
    track = {"experiment": f"secrets-{backend}", "mlflow_conn_id": "tracking", "secret_env": place.secret_env}
    return TrainModelOperator(task_id="train", command=program, **{**where, **track, **kwargs})


def kept_by_airflow(*runs: TaskRun) -> dict[str, Any]:
    """Return what tasks left in Airflow: XComs, state, requests to the server, triggers, events, errors and logs."""
    found: dict[str, Any] = {}
    for number, run in enumerate(runs):
        assert run.api is not None
        trigger = run.trigger.serialize() if run.trigger else ()
        found[f"task {number}"] = [run.xcoms, run.state_store, run.api.final, trigger, run.asset_events]
        found[f"error {number}"] = [repr(run.error), str(run.error)]
        found[f"log {number}"] = run.log
    return found


def kept_by_jobs(backend: str) -> dict[str, Any]:
    """Return what the backend itself tells of every job: owner, status and log."""
    found: dict[str, Any] = {}
    platform = TrainingHook(backend, "place").get_backend()
    assert isinstance(platform, HasLog)
    for handle, owner in platform.managed():
        told = [handle.to_dict(), owner.to_dict(), platform.observe([handle])[handle].to_dict()]
        found |= {f"status of {handle.job_id}": told, f"log of {handle.job_id}": platform.read_log(handle, 0)[0]}
    return found


def tracked(server: str, experiment: str) -> dict[str, Any]:
    """Return all runs of an experiment, with parameters, metrics and tags, as the server tells them."""
    api = f"{server}/api/2.0/mlflow"
    found = httpx.get(f"{api}/experiments/get-by-name", params={"experiment_name": experiment}).json()
    runs = httpx.post(f"{api}/runs/search", json={"experiment_ids": [found["experiment"]["experiment_id"]]}).json()
    return {"runs": runs}


def texts(*kept: dict[str, Any]) -> dict[str, str]:
    """Return everything as texts that can be searched."""
    every = {where: thing for one in kept for where, thing in one.items()}
    return {where: thing if isinstance(thing, str) else plain(thing) for where, thing in every.items()}


def plain(thing: Any) -> str:
    """Return a thing as JSON without escapes."""
    return json.dumps(thing, default=str, ensure_ascii=False)


def argument_lists() -> str:
    """Return the arguments of every process of this machine."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(file.read_bytes().decode(errors="replace"))
        except OSError:  # it ended meanwhile
            continue
    return "\n".join(found)


def reached(gate: Path) -> str:
    """Wait until the program stands at the gate, let it go on, and return the argument lists of that moment."""
    end = time.monotonic() + 90
    while not gate.with_suffix(".reached").exists():
        assert time.monotonic() < end, "the program did not come as far as the gate"
        time.sleep(0.05)
    found = argument_lists()
    gate.touch()
    return found


def digest(value: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(value.encode()).hexdigest()


def test_no_planted_secret_is_left_anywhere(
    backend: str,
    place: Place,
    planted: Planted,
    tmp_path: Path,
    mlflow_server: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Two jobs, one good and one that fails, see their secrets, and nobody else does.

    No job description, event, log, report, argument list, XCom, state, trigger, error, tracking run or line on the
    screen has one. A plain variable is found by the same search in all the places where it has to be.
    """
    mark, gate = f"mark-{secrets.token_hex(8)}", tmp_path / "gate"
    values = {"LICENCE": planted.licence, "API_KEY": planted.api_key, "MLFLOW_TRACKING_PASSWORD": planted.password}
    wanted = json.dumps({name: digest(value) for name, value in values.items()})
    program = [sys.executable, "-c", PROGRAM, str(gate), wanted]
    good = train(backend, place, program, env={"MARK": mark})
    memory = DagRunMemory()
    held = run_task(good, memory=memory, follow=False)
    assert held.state == "deferred", held.log
    arguments = reached(gate)
    event = run_trigger(held.trigger)["payload"]
    ended = run_task(good, memory=memory, resume=held, event=event)
    assert (ended.state, ended.result["metrics"]) == ("success", {"auc": 0.9}), ended.log

    bad = train(backend, place, program, env={"MARK": mark, "FAILS": "1"}, deferrable=False, retries=1)
    failed = run_task(bad, memory=DagRunMemory(run_id="failing"))
    assert (failed.state, type(failed.error)) == ("failed", JobFailedError), failed.log
    assert "ValueError: no rows" in str(failed.error)

    airflow, jobs, told = kept_by_airflow(held, ended, failed), kept_by_jobs(backend), place.told()
    runs = tracked(mlflow_server, f"secrets-{backend}")
    screen = dict(zip(("out", "err"), capfd.readouterr(), strict=True))
    everything = texts(airflow, jobs, told, runs, screen, {"arguments": arguments})
    assert planted.within(everything) == []
    assert len([where for where, text in texts(jobs).items() if mark in text]) >= 2, "the jobs' logs were not read"
    assert any(mark in text for text in texts(told).values()), "the descriptions were not read"
    assert mark in held.log + ended.log
    assert mark in failed.log
    assert len(runs["runs"]["runs"]) == 2
    assert digest(planted.licence) in arguments, "the job's own process was not seen"


@pytest.mark.parametrize("backend", ["sagemaker", "vertex", "azureml"], indirect=True)
@pytest.mark.parametrize("variable", ["LICENCE", "MLFLOW_TRACKING_PASSWORD"])
def test_a_value_of_the_worker_is_refused_where_only_a_description_could_carry_it(
    backend: str, variable: str, place: Place, planted: Planted, mlflow_server: str
) -> None:
    """A variable of the worker, or the tracking server's own password, is refused by name before anything starts."""
    references = {name: secret for name, secret in place.secret_env.items() if name != variable}
    named = {"LICENCE": "PLANTED_LICENCE"} if variable == "LICENCE" else {}
    task = train(backend, place, ["true"], secret_env={**references, **named}, retries=3)
    run = run_task(task)
    assert (run.state, type(run.error)) == ("failed", InvalidSpecError), run.log
    assert named.get(variable, variable) in str(run.error)
    assert kept_by_jobs(backend) == {}
    runs = tracked(mlflow_server, f"secrets-{backend}")
    assert planted.within(texts(kept_by_airflow(run), place.told(), runs)) == []


def test_the_search_finds_what_it_is_to_find(planted: Planted) -> None:
    """A value is found as it is and in base64 within other bytes; its digest is not taken for it."""
    hidden = base64.b64encode(f'{{"key": "{planted.api_key}"}}'.encode()).decode()
    assert planted.within({"plain": f"a={planted.licence}", "base64": hidden, "digest": digest(planted.password)}) == [
        ("licence", "plain"),
        ("api_key", "base64"),
    ]
