"""What SageMaker's own words mean, and what a spec becomes, without a service."""

from __future__ import annotations

import importlib
import json
import shlex
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.core.errors import InvalidSpecError, UnsupportedFeatureError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.core.refs import DataVersion
from airflow_mlops.testing.sagemaker import BUCKET, ROLE
from airflow_mlops.testing.sagemaker.problems import Problem
from airflow_mlops.testing.sagemaker.schema import check_request
from airflow_mlops.training.backends import sagemaker_start as starting
from airflow_mlops.training.backends.sagemaker_job import data_of, digest_of, job_request
from airflow_mlops.training.backends.sagemaker_list import JobList
from airflow_mlops.training.backends.sagemaker_machine import MACHINES, instance_type
from airflow_mlops.training.backends.sagemaker_options import SageMakerOptions, read_options
from airflow_mlops.training.backends.sagemaker_status import failure_reason, is_over, job_status, state_of
from airflow_mlops.training.backends.sagemaker_tags import escaped, owner_of, tags_of, unescaped
from airflow_mlops.training.contract import FailureReason, JobState, Resources, TrainingSpec
from airflow_mlops.training.pipelines.sagemaker_states import STATES, execution_status

ARN = "arn:aws:sagemaker:eu-west-1:123456789012:training-job/a"
OWNER = TaskIdentity("dag", "manual__2026-01-01T00:00:00+00:00", "group.train", 3, "prod")
OPTIONS = SageMakerOptions(execution_role=ROLE, output_path=f"{BUCKET}/jobs")
VERSION = DataVersion("data/train", "v1", "c" * 40, "md5:0123", 3, repo="https://example.com/data.git")

NATIVE = {
    ("InProgress", "Starting"): JobState.PENDING,
    ("InProgress", "Pending"): JobState.PENDING,
    ("InProgress", "LaunchingMLInstances"): JobState.PENDING,
    ("InProgress", "PreparingTrainingStack"): JobState.PENDING,
    ("InProgress", "Downloading"): JobState.PENDING,
    ("InProgress", "DownloadingTrainingImage"): JobState.PENDING,
    ("InProgress", "Interrupted"): JobState.PENDING,
    ("InProgress", "Restarting"): JobState.PENDING,
    ("InProgress", "Training"): JobState.RUNNING,
    ("InProgress", "Updating"): JobState.RUNNING,
    ("InProgress", "Uploading"): JobState.RUNNING,
    ("InProgress", "Stopping"): JobState.RUNNING,
    ("InProgress", "SomethingNew"): JobState.UNKNOWN,
    ("InProgress", ""): JobState.UNKNOWN,
    ("Stopping", "Stopping"): JobState.RUNNING,
    ("Completed", "Completed"): JobState.SUCCEEDED,
    ("Failed", "Failed"): JobState.FAILED,
    ("Stopped", "Stopped"): JobState.CANCELLED,
    ("Stopped", "MaxRuntimeExceeded"): JobState.FAILED,
    ("Stopped", "MaxWaitTimeExceeded"): JobState.PREEMPTED,
    ("Stopped", "Interrupted"): JobState.PREEMPTED,
    ("Stopped", "SomethingNew"): JobState.UNKNOWN,
    ("Stopped", ""): JobState.UNKNOWN,
    ("Deleting", ""): JobState.UNKNOWN,
    ("SomethingNew", "Completed"): JobState.UNKNOWN,
}


def model(name: str) -> Any:
    """Return the values that the service model has for an enumeration."""
    session = importlib.import_module("botocore.session").get_session()
    return session.get_service_model("sagemaker").shape_for(name).enum


@pytest.mark.parametrize(("words", "state"), NATIVE.items())
def test_every_pair_of_words_has_its_state(words: tuple[str, str], state: JobState) -> None:
    """A status and its secondary status mean one state; a new word is UNKNOWN, never success and never an end."""
    assert state_of(*words) is state


def test_no_word_of_the_service_model_is_left_out() -> None:
    """Every status and secondary status that botocore knows is in the table above; pipelines likewise."""
    assert {status for status, _ in NATIVE} >= set(model("TrainingJobStatus"))
    assert {detail for _, detail in NATIVE} >= set(model("SecondaryStatus"))
    assert set(STATES) == set(model("PipelineExecutionStatus"))


def test_only_what_is_over_is_over() -> None:
    """A job has ended when SageMaker says so, not when it is about to."""
    assert [is_over({"TrainingJobStatus": word}) for word in ("Completed", "Failed", "Stopped", "Stopping", "")] == [
        *(True, True, True, False, False)
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("AlgorithmError: , exit code: 41", FailureReason.USER_CODE),
        ("AlgorithmError: Exit Code: 1", FailureReason.USER_CODE),
        ("AlgorithmError: , exit code: 137", FailureReason.OUT_OF_MEMORY),
        ("AlgorithmError: , exit code: 1370", FailureReason.USER_CODE),
        ("AlgorithmError: CUDA OutOfMemoryError, exit code: 1", FailureReason.OUT_OF_MEMORY),
        ("ClientError: Please use an instance type with more memory", FailureReason.OUT_OF_MEMORY),
        ("ClientError: Data download failed: NoSuchKey", FailureReason.USER_CODE),
        ("InternalServerError: We encountered an internal error. Please try again.", FailureReason.PLATFORM),
        ("CapacityError: Unable to provision requested ML compute capacity.", FailureReason.PLATFORM),
        ("ResourceLimitExceeded: the account-level service limit", FailureReason.QUOTA),
        ("", FailureReason.NONE),
        ("Something else", FailureReason.NONE),
    ],
)
def test_kinds_of_failure(text: str, reason: FailureReason) -> None:
    """What SageMaker writes as the reason of a failure decides whether another try can help."""
    assert failure_reason(text) is reason
    job = {"TrainingJobStatus": "Failed", "SecondaryStatus": "Failed", "FailureReason": text}
    assert job_status(job).reason is reason


def test_too_long_is_a_timeout_and_billing_counts_every_node() -> None:
    """MaxRuntimeExceeded says TIMEOUT; billed are the seconds of all machines; while it runs nothing is known."""
    job = {"TrainingJobStatus": "Stopped", "SecondaryStatus": "MaxRuntimeExceeded", "BillableTimeInSeconds": 70}
    status = job_status({**job, "ResourceConfig": {"InstanceCount": 3}})
    assert (status.reason, status.billed_seconds) == (FailureReason.TIMEOUT, 210.0)
    assert job_status({"TrainingJobStatus": "InProgress", "SecondaryStatus": "Training"}).billed_seconds is None


def test_a_failed_pipeline_says_which_step_and_what_kind() -> None:
    """The reason of a step's own job counts, without what the step puts before it."""
    steps = [
        {"StepName": "fit", "StepStatus": "Failed", "FailureReason": "ClientError: InternalServerError: try again"},
        {"StepName": "load", "StepStatus": "Succeeded"},
    ]
    status = execution_status({"PipelineExecutionStatus": "Failed", "FailureReason": "Step failure"}, steps)
    assert (status.state, status.reason) == (JobState.FAILED, FailureReason.PLATFORM)
    assert "'fit'" in status.detail
    assert execution_status({"PipelineExecutionStatus": "New"}).state is JobState.UNKNOWN


def test_a_thousand_jobs_cost_a_few_requests_a_minute() -> None:
    """Ten pages at first and every ten minutes; between them one short page a look. In an hour of looks every 10 s."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    jobs = [
        {
            "TrainingJobName": f"aml-{n:04d}",
            "TrainingJobStatus": "InProgress",
            "CreationTime": begin,
            "LastModifiedTime": begin,
        }
        for n in range(1000)
    ]
    now, pages = 0.0, 0

    def ask(**query: Any) -> Iterator[list[dict[str, Any]]]:
        nonlocal pages
        after = query.get("LastModifiedTimeAfter")
        found = [job for job in jobs if after is None or job["LastModifiedTime"] > after]
        for start in range(0, max(len(found), 1), 100):
            pages += 1
            yield found[start : start + 100]

    many = JobList(ask, clock=lambda: now)
    names = [str(job["TrainingJobName"]) for job in jobs]
    for look in range(360):
        now = look * 10.0
        jobs[look]["LastModifiedTime"] = begin + timedelta(seconds=now)
        assert len(many.look(names)) == 1000
    assert pages / 60 < 9


# Tags


@given(st.text(max_size=60))
def test_any_id_survives_the_alphabet_of_tags(text: str) -> None:
    """What a tag cannot hold is escaped, and comes back as it was."""
    assume_utf8 = text.encode(errors="ignore").decode()
    assert unescaped(escaped(assume_utf8)) == assume_utf8
    check_request(
        "sagemaker",
        "AddTags",
        {"ResourceArn": ARN, "Tags": [{"Key": "k", "Value": escaped(assume_utf8)[:256]}]},
    )


def test_the_owner_is_readable_in_the_tags_and_comes_back() -> None:
    """DAG, task and run are tags of their own, for people and for bills; a stranger's job has no owner."""
    tags = tags_of(OWNER, {"team": "a"})
    assert {"Key": "airflow-mlops:task_id", "Value": "group.train"} in tags
    assert owner_of(tags) == OWNER
    assert owner_of([{"Key": "team", "Value": "a"}]) is None
    assert owner_of([{"Key": "airflow-mlops", "Value": "1"}, {"Key": "airflow-mlops:map_index", "Value": "x"}]) is None


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ({"airflow-mlops:dag_id": "x"}, "written by this package"),
        ({"team": "x" * 257}, "256"),
        ({f"t{number}": "x" for number in range(45)}, "50"),
    ],
)
def test_tags_that_cannot_be_are_refused(further: dict[str, str], message: str) -> None:
    """Ours cannot be overwritten, and the service's limits are named."""
    with pytest.raises(InvalidSpecError, match=message):
        tags_of(OWNER, further)


# Machines


@pytest.mark.parametrize(
    ("wanted", "machine"),
    [
        (Resources(), "ml.m5.large"),
        (Resources(cpus=4), "ml.m5.xlarge"),
        (Resources(cpus=3, memory_mib=20_000), "ml.r5.xlarge"),
        (Resources(cpus=4, memory_mib=16_384, gpus=1), "ml.g5.xlarge"),
        (Resources(gpus=4), "ml.g5.12xlarge"),
        (Resources(instance_type="ml.p4d.24xlarge", gpus=8), "ml.p4d.24xlarge"),
    ],
)
def test_the_smallest_machine_that_has_enough(wanted: Resources, machine: str) -> None:
    """Cores, memory and GPUs choose a machine; one that is named is taken."""
    assert instance_type(wanted) == machine


def test_wishes_that_no_machine_fulfils_are_named() -> None:
    """Too much for any, or for the one that was named, is refused by the field; and so is what is no machine."""
    with pytest.raises(UnsupportedFeatureError, match=r"resources.*instance_type"):
        instance_type(Resources(gpus=9))
    with pytest.raises(UnsupportedFeatureError, match=r"resources\.gpus"):
        instance_type(Resources(gpus=1, instance_type="ml.m5.large"))
    with pytest.raises(InvalidSpecError, match="n1-standard-4"):
        instance_type(Resources(instance_type="n1-standard-4"))
    assert set(MACHINES) <= set(model("TrainingInstanceType"))


# The request


def request(spec: TrainingSpec, options: SageMakerOptions = OPTIONS, name: str = "aml-1") -> dict[str, Any]:
    """Return the request for a spec, checked by the service model."""
    found = job_request(spec, name, OWNER, options, "eu-west-1")
    check_request("sagemaker", "CreateTrainingJob", found)
    return found


def spec(*command: str, **fields: Any) -> TrainingSpec:
    """Return a spec."""
    return TrainingSpec(command or ("python", "train.py"), **{"image": "train:1", **fields})


def test_everything_that_is_asked_for_is_in_the_request() -> None:
    """Network, keys, spot, limits, metrics and inputs come where SageMaker has them."""
    options = read_options(
        {
            "subnets": ["subnet-1"],
            "security_group_ids": ["sg-1"],
            "kms_key": "alias/out",
            "volume_kms_key": "alias/disk",
            "encrypt_traffic": True,
            "network_isolation": True,
            "max_wait": 600,
            "keep_alive": 300,
            "inputs": {"train": "s3://b/train"},
            "metric_definitions": {"auc": "auc=([0-9.]+)"},
            "tags": {"team": "a"},
        },
        {"execution_role": ROLE, "output_path": f"{BUCKET}/jobs"},
    )
    wanted = spec(nodes=2, spot=True, checkpoint="s3://b/c", max_runtime=90.2, inputs={"old": VERSION})
    found = request(wanted, options)
    assert found["VpcConfig"] == {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    assert found["OutputDataConfig"]["KmsKeyId"] == "alias/out"
    machine = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 30}
    assert found["ResourceConfig"] == {**machine, "VolumeKmsKeyId": "alias/disk", "KeepAlivePeriodInSeconds": 300}
    assert found["StoppingCondition"] == {"MaxRuntimeInSeconds": 91, "MaxWaitTimeInSeconds": 691}
    assert found["CheckpointConfig"] == {"S3Uri": "s3://b/c", "LocalPath": "/opt/ml/checkpoints"}
    switches = ("EnableManagedSpotTraining", "EnableInterContainerTrafficEncryption", "EnableNetworkIsolation")
    assert [found[switch] for switch in switches] == [True, True, True]
    assert found["AlgorithmSpecification"]["MetricDefinitions"] == [{"Name": "auc", "Regex": "auc=([0-9.]+)"}]
    assert found["Environment"]["MLOPS_INPUT_TRAIN"] == "/opt/ml/input/data/train"
    assert (digest_of(found), data_of(found)) == (wanted.digest(), {"old": VERSION})


def test_an_input_in_s3_becomes_a_channel() -> None:
    """SageMaker copies it before the program starts, which sees a folder."""
    found = request(spec(env={"MLOPS_INPUT_TRAIN": "s3://b/train"}))
    assert found["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"] == "s3://b/train"
    assert found["Environment"]["MLOPS_INPUT_TRAIN"] == "/opt/ml/input/data/train"


def test_data_versions_are_fetched_at_the_start_if_the_image_can() -> None:
    """With fetch_inputs, dvc gets the very commit to a folder; without it the program sees the address."""
    wanted = spec(inputs={"train": VERSION}, env={"MLOPS_INPUT_TRAIN": VERSION.uri})
    assert request(wanted)["Environment"]["MLOPS_INPUT_TRAIN"] == VERSION.uri
    options = SageMakerOptions(execution_role=ROLE, output_path="s3://b", fetch_inputs=True)
    found = request(wanted, options)
    assert found["Environment"]["MLOPS_INPUT_TRAIN"] == "/opt/ml/input/data/train"
    steps = found["AlgorithmSpecification"]["ContainerArguments"]
    assert [step for step in steps if f"--rev {VERSION.commit} -- {VERSION.repo} data/train" in step]


def test_a_short_command_can_be_read_in_the_request() -> None:
    """What fits the service's limits is not packed."""
    found = request(spec(args=("--epochs", "3"), parameters={"lr": 0.5}))
    arguments = found["AlgorithmSpecification"]["ContainerArguments"]
    assert arguments[arguments.index("--") + 1 :] == ["python", "train.py", "--epochs", "3", "--lr", "0.5"]
    assert list(found["HyperParameters"]) == ["mlops_spec"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": ""}, "image"),
        ({"checkpoint": "/mnt/checkpoints"}, "/mnt/checkpoints"),
        ({"max_runtime": 29 * 86400.0}, "max_runtime"),
        ({"env": {"a-b": "x"}}, "'a-b'"),
        ({"secret_env": {"TOKEN": "TOKEN"}}, "secretsmanager:<name>"),
        ({"inputs": {"train": DataVersion("d" * 3000, "v", "c", "md5:1", 1)}}, "'train'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(fields: dict[str, Any], message: str) -> None:
    """Each limit is an error that names the field and what to write instead."""
    with pytest.raises(InvalidSpecError, match=message):
        request(spec(**fields))


@pytest.mark.parametrize("name", ["", "-a", "a_b", "a" * 64, "a-"])
def test_names_that_no_job_can_have(name: str) -> None:
    """A name that SageMaker would refuse is refused before."""
    with pytest.raises(InvalidSpecError, match="name"):
        request(spec(), name=name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"executionrole": ROLE}, "execution_role"),
        ({"volume_gib": "30"}, "volume_gib"),
        ({"volume_gib": True}, "volume_gib"),
        ({"subnets": ["subnet-1"]}, "security_group_ids"),
        ({"execution_role": ""}, "execution_role"),
        ({"output_path": "/tmp"}, "output_path"),
    ],
)
def test_options_that_are_wrong_are_named(options: dict[str, Any], message: str) -> None:
    """An unknown, ill-typed or missing option says which, and what there is."""
    with pytest.raises(InvalidSpecError, match=message):
        read_options(options, {} if "execution_role" in options else {"execution_role": ROLE, "output_path": "s3://b"})


# Starting


def run(start: starting.Start, root: Path) -> subprocess.CompletedProcess[str]:
    """Run what SageMaker would run, with its files in a folder."""
    (root / "input/config").mkdir(parents=True, exist_ok=True)
    (root / "input/config/hyperparameters.json").write_text(json.dumps({"mlops_spec": "x", **start.packed}))
    env = {"PATH": "/usr/bin:/bin", **start.environment, "MLOPS_ROOT": str(root)}
    found = subprocess.run([*start.entrypoint, *start.arguments], env=env, capture_output=True, check=False)
    return subprocess.CompletedProcess(found.args, found.returncode, found.stdout.decode(), found.stderr.decode())


WORDS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=300), max_size=5)


@settings(max_examples=60, deadline=None)
@given(words=WORDS, value=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=700))
def test_every_word_and_value_arrives_as_it_was(
    words: list[str], value: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Quotes, newlines, dollars, long words and long values reach the program, whichever way they were sent."""
    shown = ("sh", "-c", 'printf "%s\\0" "$@"; printf "%s" "$VALUE"', "job")
    start = starting.start([*shown, *words], [], {"VALUE": value})
    body = {"TrainingJobName": "a", "RoleArn": ROLE, "OutputDataConfig": {"S3OutputPath": "s3://b"}}
    algorithm = {
        "TrainingInputMode": "File",
        "ContainerEntrypoint": start.entrypoint,
        "ContainerArguments": start.arguments,
    }
    check = {"AlgorithmSpecification": algorithm, "Environment": start.environment, "HyperParameters": start.packed}
    check_request("sagemaker", "CreateTrainingJob", {**body, **check})
    found = run(start, tmp_path_factory.mktemp("root"))
    assert found.stdout == "".join(f"{word}\0" for word in words or [""]) + value, found.stderr


def test_a_hundred_kilobytes_of_source_arrive(tmp_path: Path) -> None:
    """The largest function that @task.train sends, and arguments of the same size, fit."""
    source, call = "".join(f"x{n} = {n * 7919}\n" for n in range(7000))[: 100 << 10], json.dumps({"a": ["é" * 17_000]})
    start = starting.start(["sh", "-c", 'printf %s "$1" | wc -c; printf %s "$2" | wc -c', "x", source, call], [], {})
    found = run(start, tmp_path)
    assert found.stdout.split() == [str(len(source.encode())), str(len(call.encode()))], found.stderr
    assert max(map(len, start.packed.values())) <= 2500


def test_a_packed_command_survives_a_writer_that_escapes(tmp_path: Path) -> None:
    """Hyperparameters whose JSON has ``=`` and ``/`` escaped are read all the same."""
    start = starting.start(["printf", "%s", "x\ny" * 200], [], {})
    (tmp_path / "input/config").mkdir(parents=True)
    text = json.dumps(start.packed, indent=1).replace("=", "\\u003d").replace("/", "\\/")
    (tmp_path / "input/config/hyperparameters.json").write_text(text)
    env = {"PATH": "/usr/bin:/bin", "MLOPS_ROOT": str(tmp_path)}
    found = subprocess.run([*start.entrypoint, *start.arguments], env=env, capture_output=True, text=True, check=False)
    assert found.stdout == "x\ny" * 200, found.stderr


def test_too_much_for_the_service_is_refused_naming_the_limit() -> None:
    """What cannot be packed into the hyperparameters says how much it is and how much may be."""
    noise = "".join(chr(0x4E00 + (n * 7919) % 20_000) for n in range(120_000))
    with pytest.raises(InvalidSpecError, match="225000"):
        starting.start(["python", "-c", noise], [], {})


def test_a_step_that_fails_ends_the_job_before_the_program(tmp_path: Path) -> None:
    """The program never runs without what it was promised."""
    found = run(starting.start(["echo", "ran"], ["x=$(exit 7); echo $x"], {}), tmp_path)
    assert (found.returncode, found.stdout) == (7, "")


@pytest.mark.parametrize("code", [0, 3, 137])
def test_the_exit_code_is_that_of_the_program(code: int, tmp_path: Path) -> None:
    """The shell around it changes nothing."""
    assert run(starting.start(["sh", "-c", f"exit {code}"], [], {}), tmp_path).returncode == code


@pytest.mark.parametrize("hosts", [["algo-1", "algo-2"], ["algo-1", "algo-10", "algo-2"]])
def test_each_node_finds_its_place(hosts: list[str], tmp_path: Path) -> None:
    """Ranks are different, the master is the first host, and the size of the world is right."""
    seen = []
    for host in hosts:
        (tmp_path / "input/config").mkdir(parents=True, exist_ok=True)
        groups = [{"instance_group_name": "g", "instance_type": "ml.m5.large", "hosts": hosts}]
        world = {"current_host": host, "hosts": hosts, "instance_groups": groups, "network_interface_name": "eth0"}
        (tmp_path / "input/config/resourceconfig.json").write_text(json.dumps(world))
        program = ["sh", "-c", "echo $MLOPS_NODES $MLOPS_NODE_RANK $MLOPS_MASTER_ADDR"]
        seen.append(run(starting.start(program, starting.world_steps(len(hosts)), {}), tmp_path).stdout.split())
    assert seen == [[str(len(hosts)), str(rank), "algo-1"] for rank in range(len(hosts))]


def test_without_the_file_of_hosts_no_node_starts(tmp_path: Path) -> None:
    """A node that does not know its place would train alone: it fails instead."""
    found = run(starting.start(["echo", "ran"], starting.world_steps(2), {}), tmp_path)
    assert found.returncode != 0
    assert found.stdout == ""


@pytest.mark.parametrize(
    ("secret", "found"),
    [
        ("secretsmanager:prod/mlflow#password", "prod/mlflow#password"),
        ("secretsmanager:token", "token"),
        ("arn:aws:secretsmanager:eu-west-1:123456789012:secret:a-Ab1#k", None),
    ],
)
def test_secrets_travel_by_name(secret: str, found: str | None) -> None:
    """The request says where a value is, under a name of its own, and the start reads it."""
    variables = request(spec(secret_env={"TOKEN": secret}))["Environment"]
    assert variables["MLOPS_SECRET_TOKEN"] == (found or secret)
    assert "TOKEN" not in variables
    compile(variables["MLOPS_READ_SECRETS"], "read", "exec")


def test_the_model_refuses_what_botocore_itself_lets_through() -> None:
    """The fake's schema is stricter than the client: lengths, patterns and unknown members are errors."""
    good = request(spec())
    for bad in (
        {**good, "TrainingJobname": "x"},
        {**good, "TrainingJobName": "a_b"},
        {**good, "Environment": {"A": "x" * 513}},
        {**good, "AlgorithmSpecification": {**good["AlgorithmSpecification"], "ContainerArguments": ["a\nb"]}},
    ):
        with pytest.raises(Problem):
            check_request("sagemaker", "CreateTrainingJob", bad)
    assert shlex.join(good["AlgorithmSpecification"]["ContainerEntrypoint"])
