"""The SageMaker backend's own promises, beyond those that all backends make, with the official client over HTTP."""

from __future__ import annotations

import hashlib
import json
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import (
    ConflictError,
    InvalidSpecError,
    JobFailedError,
    NotFoundError,
    PlatformUnavailableError,
    QuotaExceededError,
)
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.core.refs import DataVersion
from airflow_mlops.testing.sagemaker import BUCKET, REGION, ROLE, SageMakerFake, sagemaker_fake
from airflow_mlops.testing.sagemaker.front import SERVED
from airflow_mlops.training.backends import sagemaker_list
from airflow_mlops.training.backends.sagemaker import SageMakerBackend
from airflow_mlops.training.contract import FailureReason, JobHandle, JobState, JobStatus, TrainingSpec

OWNER = TaskIdentity("dag", "run", "train")
REPORT = 'printf \'{"metrics": {"auc": 0.75}, "model_uri": "models:/m-1"}\' > "$MLOPS_OUTPUT"'
VERSION = DataVersion("data/train", "v1", "c" * 40, "md5:0123", 3, repo="https://example.com/data.git")


class Account:
    """A fake with a backend, and what every test does with them."""

    def __init__(self, fake: SageMakerFake) -> None:
        self.fake = fake
        self.backend = SageMakerBackend.from_connection(fake.connection(config_kwargs={"read_timeout": 20}))

    def submit(self, script: str, name: str = "", **fields: Any) -> JobHandle:
        """Submit a shell script."""
        name = name or f"aml-{uuid.uuid4().hex[:12]}"
        return self.backend.submit(spec(script, **fields), name=name, owner=OWNER)

    def look(self, job: JobHandle) -> JobStatus:
        """Look once."""
        return self.backend.observe([job])[job]

    def wait(self, job: JobHandle, *states: JobState) -> JobStatus:
        """Look until the job is in one of these states, or over."""
        wanted = states or tuple(state for state in JobState if state.terminal)
        return until(lambda: (found := self.look(job)).state in wanted and found)

    def ended(self, script: str, **fields: Any) -> tuple[JobHandle, JobStatus]:
        """Run a shell script to its end."""
        job = self.submit(script, **fields)
        return job, self.wait(job)

    def told(self, job: JobHandle) -> dict[str, Any]:
        """Return what the service knows of a job."""
        return self.fake.jobs()[job.job_id.partition("/")[2]]


def spec(script: str, **fields: Any) -> TrainingSpec:
    """Return a spec that runs a shell script."""
    return TrainingSpec(("sh", "-c", script, "job"), **{"image": "train:1", **fields})


def until(look: Callable[[], Any], limit: float = 30.0) -> Any:
    """Look until there is something, and return it."""
    end = time.monotonic() + limit
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


@pytest.fixture
def account() -> Iterator[Account]:
    """Run an account for one test."""
    with sagemaker_fake() as fake:
        yield Account(fake)


# Exactly one


def test_a_lost_answer_leaves_one_job(account: Account) -> None:
    """The client asks again, meets its own job and takes it: one job, one submission."""
    account.fake.faults.lose_answers(1)
    job = account.submit("true", "aml-lost")
    assert account.wait(job).state is JobState.SUCCEEDED
    assert list(account.fake.jobs()) == ["aml-lost"]
    assert account.fake.calls.count("CreateTrainingJob") == 2


def test_when_every_answer_is_lost_the_next_try_finds_the_job(account: Account) -> None:
    """The error says that the platform is away, which is tried again; then the job is found by its name."""
    account.fake.faults.lose_answers(4)
    with pytest.raises(PlatformUnavailableError):
        account.submit("sleep 1", "aml-lost")
    located = account.backend.locate("aml-lost")
    assert account.submit("sleep 1", "aml-lost") == located
    assert list(account.fake.jobs()) == ["aml-lost"]


@pytest.mark.parametrize("fault", ["throttle", "fail"])
def test_a_busy_or_broken_service_is_asked_again(account: Account, fault: str) -> None:
    """Two refusals cost time, and nothing else."""
    getattr(account.fake.faults, fault)(2)
    assert account.ended("true")[1].state is JobState.SUCCEEDED


def test_a_service_that_stays_away_is_unavailable(account: Account) -> None:
    """Neither refusals without end nor a dead service are taken for a fault of the job."""
    account.fake.faults.throttle(10)
    with pytest.raises(PlatformUnavailableError, match="Throttling"):
        account.submit("true")
    account.fake.crash()
    with pytest.raises(PlatformUnavailableError):
        account.backend.observe([JobHandle("sagemaker", f"{REGION}/aml-1")])


def test_a_restart_of_the_service_changes_nothing(account: Account) -> None:
    """A job goes on while nobody answers, and is found afterwards."""
    job = account.submit("sleep 1")
    account.fake.restart()
    assert account.wait(job).state is JobState.SUCCEEDED


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("ResourceLimitExceeded", QuotaExceededError),
        ("AccessDeniedException", InvalidSpecError),
        ("ValidationException", InvalidSpecError),
        ("ExpiredTokenException", PlatformUnavailableError),
    ],
)
def test_refusals_say_what_to_do(account: Account, code: str, error: type[Exception]) -> None:
    """A quota may be free later, a missing right or a bad request never, new credentials perhaps."""
    account.fake.faults.refuse(9, code, "on demand of a test", operation="CreateTrainingJob")
    with pytest.raises(error, match=code):
        account.submit("true")


def test_another_spec_under_the_same_name_is_refused_for_ever(account: Account) -> None:
    """Also when the first job has ended long ago: SageMaker never takes a name twice."""
    account.ended("true", name="aml-1")
    with pytest.raises(ConflictError, match="aml-1"):
        account.submit("exit 1", "aml-1")


# What the program gets, and what comes back


def test_report_metrics_data_and_bill_come_back(account: Account) -> None:
    """The report, the data versions, and what SageMaker bills; metrics it read itself fill in what was not reported."""
    options = {"metric_definitions": {"loss": "loss=([0-9.]+)", "auc": "auc=([0-9.]+)"}}
    script = f"echo loss=0.9; echo loss=0.1 auc=0.5; {REPORT}"
    job, status = account.ended(script, options=options, inputs={"train": VERSION}, env={"MLFLOW_RUN_ID": "r1"})
    result = account.backend.collect(job)
    assert (result.metrics, result.model_uri) == ({"loss": 0.1, "auc": 0.75}, "models:/m-1")
    assert (result.data, result.run_id) == ({"train": VERSION}, "r1")
    assert result.billed_seconds == status.billed_seconds == account.told(job)["BillableTimeInSeconds"]
    assert result.ran_seconds is None


def test_two_nodes_know_each_other_and_are_both_billed(account: Account) -> None:
    """Each node has its rank and the master's name; rank 0 reports; both are paid for."""
    script = (
        'echo "$MLOPS_NODE_RANK of $MLOPS_NODES at $MLOPS_MASTER_ADDR:$MLOPS_MASTER_PORT"; sleep 1.1; '
        f'if [ "$MLOPS_NODE_RANK" = 0 ]; then {REPORT}; fi'
    )
    job, status = account.ended(script, nodes=2)
    assert status.state is JobState.SUCCEEDED, status
    assert account.backend.read_log(job, 0)[0] == "0 of 2 at algo-1:29500\n"
    assert account.backend.collect(job).metrics == {"auc": 0.75}
    assert status.billed_seconds == 2 * account.told(job)["BillableTimeInSeconds"]


def test_inputs_are_copied_before_the_program_starts(account: Account) -> None:
    """An address in S3 becomes a folder; an input that is not there fails the job and says so."""
    folder = account.fake.world.storage.path("s3://data/train")
    folder.mkdir(parents=True)
    (folder / "part.csv").write_text("1,2\n")
    job, _ = account.ended('cat "$MLOPS_INPUT_TRAIN/part.csv"', env={"MLOPS_INPUT_TRAIN": "s3://data/train"})
    assert account.backend.read_log(job, 0)[0] == "1,2\n"
    _, status = account.ended("true", env={"MLOPS_INPUT_TRAIN": "s3://data/none"})
    assert (status.state, status.reason) == (JobState.FAILED, FailureReason.USER_CODE)
    assert "NoSuchKey" in status.detail


def test_a_long_command_and_environment_arrive(account: Account) -> None:
    """A script of 60 KiB and a variable of 2,000 characters: longer than the fields of a training job."""
    script = "# " + "x" * 60_000 + '\nprintf "%s" "$LONG" | wc -c; echo "$1"'
    job = account.backend.submit(
        TrainingSpec(("sh", "-c", script, "job"), args=("a\nb",), image="t:1", env={"LONG": "y" * 2000}),
        name="aml-long",
        owner=OWNER,
    )
    assert account.wait(job).state is JobState.SUCCEEDED
    assert account.backend.read_log(job, 0)[0].split() == ["2000", "a", "b"]


def test_a_report_that_is_lost_is_never_an_empty_one(account: Account) -> None:
    """Without its archive, or without the report in it, a job has no result, unless it has a tracking run."""
    job, _ = account.ended(REPORT)
    archive = account.fake.world.storage.path(f"{BUCKET}/jobs/{job.job_id.partition('/')[2]}/output/output.tar.gz")
    archive.unlink()
    with pytest.raises(NotFoundError):
        account.backend.collect(job)
    removed, _ = account.ended('rm "$MLOPS_OUTPUT"; touch "${MLOPS_OUTPUT%/*}/other"')
    with pytest.raises(NotFoundError, match="mlops_output"):
        account.backend.collect(removed)
    tracked, _ = account.ended('rm "$MLOPS_OUTPUT"', env={"MLFLOW_RUN_ID": "r1"})
    assert account.backend.collect(tracked).run_id == "r1"


@pytest.mark.parametrize("change", [lambda data: data[: len(data) // 2], lambda data: b"x" + data[1:]])
def test_a_broken_archive_fails_by_name(account: Account, change: Callable[[bytes], bytes]) -> None:
    """A cut or scrambled archive is an error, not an empty result."""
    job, _ = account.ended(REPORT)
    archive = account.fake.world.storage.path(f"{BUCKET}/jobs/{job.job_id.partition('/')[2]}/output/output.tar.gz")
    archive.write_bytes(change(archive.read_bytes()))
    with pytest.raises(JobFailedError, match=r"output\.tar\.gz"):
        account.backend.collect(job)


def test_a_report_that_is_wrong_fails(account: Account) -> None:
    """What is no JSON is never read as nothing."""
    job, _ = account.ended('echo oops > "$MLOPS_OUTPUT"')
    with pytest.raises(JobFailedError, match="not JSON"):
        account.backend.collect(job)


# Ends


def test_a_failure_has_its_last_lines(account: Account) -> None:
    """Looked at alone, a failed job shows the exit code and what it printed last."""
    _, status = account.ended("echo ValueError: no rows >&2; exit 41")
    assert (status.state, status.reason) == (JobState.FAILED, FailureReason.USER_CODE)
    assert "exit code: 41" in status.detail
    assert "ValueError: no rows" in status.detail


def test_killed_for_memory_is_told_apart(account: Account) -> None:
    """A program that was killed is out of memory, and never tried again."""
    assert account.ended("kill -9 $$")[1].reason is FailureReason.OUT_OF_MEMORY


def test_the_platforms_own_fault_may_be_tried_again(account: Account) -> None:
    """An internal error and a lack of machines are not the program's."""
    for why in ("InternalServerError: We encountered an internal error.", "CapacityError: Unable to provision."):
        job = account.submit("sleep 60")
        account.wait(job, JobState.RUNNING)
        account.fake.fail(job.job_id.partition("/")[2], why)
        assert account.wait(job).reason is FailureReason.PLATFORM


def test_too_long_is_a_timeout(account: Account) -> None:
    """SageMaker stops it, and that is neither a success nor a cancellation."""
    _, status = account.ended("sleep 60", max_runtime=1)
    assert (status.state, status.reason) == (JobState.FAILED, FailureReason.TIMEOUT)
    assert status.native == "Stopped/MaxRuntimeExceeded"


def test_a_stopped_program_may_save_first(account: Account) -> None:
    """It gets SIGTERM and time; meanwhile the job still runs, and a second order changes nothing."""
    job = account.submit('trap "sleep 0.5; echo saved; exit 0" TERM; echo up; while :; do sleep 0.1; done')
    until(lambda: account.backend.read_log(job, 0)[0])
    account.backend.cancel(job)
    assert account.look(job).state is JobState.RUNNING
    account.backend.cancel(job)
    assert account.wait(job).state is JobState.CANCELLED
    assert account.backend.read_log(job, 0)[0] == "up\nsaved\n"


def test_only_a_job_that_goes_on_is_stopped(account: Account) -> None:
    """An order for what has ended, or never was, is no request; one that is refused is an error."""
    ended, _ = account.ended("true")
    account.backend.cancel(ended)
    account.backend.cancel(JobHandle("sagemaker", f"{REGION}/aml-nobody"))
    assert account.fake.calls.count("StopTrainingJob") == 0
    job = account.submit("sleep 60")
    account.fake.faults.refuse(1, "AccessDeniedException", "not yours", operation="StopTrainingJob")
    with pytest.raises(InvalidSpecError, match="not yours"):
        account.backend.cancel(job)


# Spot


def test_a_spot_job_that_is_interrupted_goes_on_from_its_checkpoint(account: Account) -> None:
    """SageMaker starts it again itself, under the same name, with what it kept; less is billed than it ran."""
    step = 'n=$(cat "$MLOPS_CHECKPOINT_DIR/n" 2>/dev/null || echo 0); n=$((n+1)); echo $n > "$MLOPS_CHECKPOINT_DIR/n"'
    script = f'{step}; echo "begin $n"; [ $n -gt 1 ] || sleep 60; {REPORT}'
    job = account.submit(script, spot=True, checkpoint="s3://kept/c1", max_runtime=60)
    until(lambda: account.backend.read_log(job, 0)[0])
    account.fake.interrupt(job.job_id.partition("/")[2])
    assert account.wait(job).state is JobState.SUCCEEDED
    assert account.backend.read_log(job, 0)[0] == "begin 1\nbegin 2\n"
    words = [step["Status"] for step in account.told(job)["SecondaryStatusTransitions"]]
    assert "Interrupted" in words
    result = account.backend.collect(job)
    assert result.billed_seconds is not None
    assert result.ran_seconds is not None
    assert result.billed_seconds <= result.ran_seconds
    assert len(account.fake.jobs()) == 1


def test_without_spot_machines_a_job_is_preempted_not_failed(account: Account) -> None:
    """The limit of waiting ends it; our driver then starts the next attempt from the checkpoint."""
    job = account.submit("sleep 60", spot=True, max_runtime=1, options={"max_wait": 1})
    account.wait(job, JobState.RUNNING)
    account.fake.world.has_spot = False
    account.fake.interrupt(job.job_id.partition("/")[2])
    status = account.wait(job)
    assert (status.state, status.native) == (JobState.PREEMPTED, "Stopped/MaxWaitTimeExceeded")


# Looking at many


def plant(account: Account, count: int) -> list[JobHandle]:
    """Submit jobs that run."""
    return [account.submit("sleep 60", f"aml-many-{number:03d}") for number in range(count)]


def test_many_jobs_cost_a_list_and_then_only_what_changed(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look reads all pages, later ones a short list; nobody is described who did not end badly."""
    monkeypatch.setattr(sagemaker_list, "PAGE", 2)
    jobs = plant(account, 5)
    until(lambda: all(status.state is JobState.RUNNING for status in account.backend.observe(jobs).values()))
    monkeypatch.setattr(sagemaker_list, "OVERLAP", sagemaker_list.OVERLAP * 0)
    account.fake.calls.reset()
    assert len(account.backend.observe(jobs)) == 5
    assert (account.fake.calls.count("ListTrainingJobs"), account.fake.calls.count()) == (1, 1)
    account.fake.fail("aml-many-003", "InternalServerError: try again")
    found = until(lambda: (s := account.backend.observe(jobs)[jobs[3]]).state is JobState.FAILED and s)
    assert found.reason is FailureReason.PLATFORM
    assert account.fake.calls.count("DescribeTrainingJob") == 1
    account.backend.observe(jobs)
    assert account.fake.calls.count("DescribeTrainingJob") == 1


def test_a_list_that_lags_makes_nobody_gone_or_done(account: Account) -> None:
    """A job that a stale list lacks is absent from one look and found by the look at it alone, as the watcher makes."""
    first = plant(account, 2)
    account.backend.observe(first)
    account.fake.faults.stale_lists = True
    account.backend.observe(first)
    late = account.submit("sleep 60", "aml-many-late")
    assert late not in account.backend.observe([*first, late])
    assert account.look(late).state in (JobState.PENDING, JobState.RUNNING)
    assert late in account.backend.observe([*first, late])


def test_what_a_short_list_never_showed_the_whole_list_does(account: Account) -> None:
    """A change that got lost is found when the whole list is read again."""
    now = 0.0
    asked: list[dict[str, Any]] = []
    backend = account.backend
    jobs = sagemaker_list.JobList(
        lambda **query: (
            asked.append(query),
            backend._aws.pages("sagemaker", "list_training_jobs", "TrainingJobSummaries", **query),
        )[1],
        clock=lambda: now,
    )
    planted = plant(account, 2)
    assert [account.wait(job, JobState.RUNNING).state for job in planted] == [JobState.RUNNING] * 2
    names = [job.job_id.partition("/")[2] for job in planted]
    jobs.look(names)
    account.fake.set_job(names[0], TrainingJobStatus="Stopped", SecondaryStatus="Stopped")
    account.fake.set_job(names[0], LastModifiedTime=account.fake.jobs()[names[0]]["CreationTime"].replace(year=2020))
    assert jobs.look(names)[names[0]]["TrainingJobStatus"] == "InProgress"
    now = sagemaker_list.WHOLE + 1
    assert jobs.look(names)[names[0]]["TrainingJobStatus"] == "Stopped"
    assert ["LastModifiedTimeAfter" in query for query in asked] == [False, True, False]
    assert asked[0]["NameContains"] == "aml-many-00"


def test_a_status_nobody_knows_is_unknown_and_watched_on(account: Account) -> None:
    """A new word of SageMaker ends nothing."""
    job = account.submit("sleep 60")
    account.wait(job, JobState.RUNNING)
    account.fake.set_job(job.job_id.partition("/")[2], SecondaryStatus="Updating")
    assert account.look(job).state is JobState.RUNNING
    account.fake.set_job(job.job_id.partition("/")[2], TrainingJobStatus="Deleting")
    assert account.look(job).state is JobState.UNKNOWN


def test_managed_yields_what_is_active_or_ended_lately(account: Account) -> None:
    """A job that ended long ago is not swept; a stranger's never is."""
    running, ended = account.submit("sleep 60"), account.ended("true")[0]
    old = account.ended("true")[0]
    moment = account.told(old)["CreationTime"].replace(year=2020)
    account.fake.set_job(old.job_id.partition("/")[2], LastModifiedTime=moment)
    stranger = account.submit("sleep 60")
    account.fake.set_job(stranger.job_id.partition("/")[2], Tags=[{"Key": "team", "Value": "a"}])
    assert dict(account.backend.managed()) == {running: OWNER, ended: OWNER}


# Log


def test_the_log_is_read_on_from_where_it_ended(account: Account) -> None:
    """Each line comes once, whole, however many share a millisecond."""
    job = account.submit("for i in $(seq 300); do echo $i; done; sleep 0.6; for i in $(seq 301 400); do echo $i; done")
    text, offset = "", 0
    while True:
        over = account.look(job).state.terminal
        piece, offset = account.backend.read_log(job, offset)
        assert piece == "" or piece.endswith("\n")
        text += piece
        if over and not piece:
            break
    assert text.split() == [str(number) for number in range(1, 401)]


def test_a_large_log_comes_in_pieces(account: Account) -> None:
    """At most 1 MiB at once, and nothing twice."""
    job, _ = account.ended(f"{sys.executable} -c \"print('\\n'.join('x' * 99 for _ in range(25_000)))\"")
    sizes, offset = [], 0
    while piece := account.backend.read_log(job, offset)[0]:
        offset = account.backend.read_log(job, offset)[1]
        sizes.append(len(piece))
    assert sum(sizes) == 2_500_000
    assert max(sizes) <= 1 << 20


def test_a_log_that_cannot_be_read_harms_nobody(account: Account) -> None:
    """Without the right to it a job runs, fails and is told about all the same."""
    account.fake.faults.refuse(99, "AccessDeniedException", "no", operation="FilterLogEvents")
    account.fake.faults.refuse(99, "AccessDeniedException", "no", operation="DescribeLogStreams")
    job, status = account.ended("exit 3")
    assert "exit code: 3" in status.detail
    assert account.backend.read_log(job, 0) == ("", 0)


# Secrets


def test_secrets_reach_the_program_and_nothing_else(account: Account) -> None:
    """The values come from Secrets Manager; no description, tag or log of the job has them."""
    account.fake.world.vault |= {"prod/mlflow": json.dumps({"password": "pa'ss$w\nord"}), "token": "tok en"}
    secrets = {"PASSWORD": "secretsmanager:prod/mlflow#password", "TOKEN": "secretsmanager:token"}
    probe = 'printf "%s|%s" "$PASSWORD" "$TOKEN" | sha256sum'
    job, status = account.ended(probe, secret_env=secrets, env={"PASSWORD": "plain"})
    assert status.state is JobState.SUCCEEDED, status
    assert account.backend.read_log(job, 0)[0].split()[0] == hashlib.sha256(b"pa'ss$w\nord|tok en").hexdigest()
    seen = json.dumps(account.told(job), default=str)
    assert "tok en" not in seen
    assert "pa'ss" not in seen
    assert "plain" not in account.told(job)["Environment"].values()


def test_a_secret_that_is_not_there_fails_before_the_program(account: Account) -> None:
    """The program never runs without it, and the log says which call failed."""
    job, status = account.ended("echo ran", secret_env={"TOKEN": "secretsmanager:none"})
    assert status.state is JobState.FAILED
    assert "ResourceNotFound" in status.detail
    assert "ran\n" not in account.backend.read_log(job, 0)[0]


# Connection


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"login": "AKIANOBODY"}, InvalidSpecError, "credentials"),
        ({"password": "wrong"}, InvalidSpecError, "credentials"),
        ({"extra": {"regionname": "x"}}, InvalidSpecError, "region_name"),
        ({"extra": {"verify": False}}, InvalidSpecError, "verify"),
        ({"extra": {"region_name": "eu-test-1", "assume_role_method": "x", "role_arn": ROLE}}, InvalidSpecError, "'x'"),
    ],
)
def test_a_connection_that_is_wrong_says_how(
    account: Account, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Bad keys, misspelt extras and switched-off TLS are refused; no message has a key in it."""
    good = account.fake.connection()
    fields = {"login": good.login, "password": good.password, "extra": good.extra, **change}
    with pytest.raises(error, match=message) as caught:
        SageMakerBackend.from_connection(ConnectionInfo("aws", **fields)).locate("aml-1")
    assert good.password not in str(caught.value)


def test_keys_in_the_extras_and_older_places_work(account: Account) -> None:
    """Every place that the official connection has for an access key is read."""
    good = account.fake.connection()
    keys = {"aws_access_key_id": good.login, "aws_secret_access_key": good.password}
    for extra in ({**good.extra, **keys}, {**good.extra, "session_kwargs": keys}):
        assert SageMakerBackend.from_connection(ConnectionInfo("aws", extra=extra)).locate("aml-1") is None


@pytest.mark.parametrize("seconds", [3600, 1])
def test_a_role_is_assumed_and_renewed(account: Account, seconds: int) -> None:
    """The requests are signed with the role's key, and with another one when that is about to end."""
    account.fake.world.pace.role = seconds
    where = {"role_arn": ROLE, "service_config": {"sts": {"endpoint_url": account.fake.address}}}
    backend = SageMakerBackend.from_connection(account.fake.connection(**where))
    before = len(account.fake.world.keys)
    assert [backend.locate("aml-1") for _ in range(3)] == [None] * 3
    assert len(account.fake.world.keys) - before == (1 if seconds == 3600 else 3)


def test_without_a_region_the_message_says_what_to_set(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is guessed."""
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(InvalidSpecError, match="region_name"):
        SageMakerBackend.from_connection(ConnectionInfo("aws")).locate("aml-1")


def test_a_handle_of_another_region_is_asked_there(account: Account) -> None:
    """The region is in the job's id, so a handle finds its job whatever the connection says."""
    elsewhere = SageMakerBackend.from_connection(account.fake.connection(region_name="us-test-2"))
    job = elsewhere.submit(spec("true"), name="aml-1", owner=OWNER)
    assert job.job_id == "us-test-2/aml-1"
    assert account.wait(job).state is JobState.SUCCEEDED
    assert account.backend.locate("aml-1") is None


def test_the_fake_is_strict(account: Account) -> None:
    """An operation it does not serve and a field that does not exist are errors, not silence."""
    with pytest.raises(InvalidSpecError, match="does not serve"):
        account.backend._aws.call("sagemaker", "list_models")


def test_the_rights_of_the_how_to_are_those_that_are_asked_for() -> None:
    """The policy names every operation that the fake serves, and no other; a new one cannot be forgotten there."""
    text = (Path(__file__).parents[2] / "docs/howto/sagemaker.md").read_text()
    policy = json.loads(text.partition("```json\n")[2].partition("```")[0])
    listed = {action for each in policy["Statement"] for action in each["Action"] if isinstance(each["Action"], list)}
    services = {"sagemaker": SERVED["sagemaker"], "logs": SERVED["logs"]}
    served = {f"{service}:{operation}" for service, names in services.items() for operation in names}
    assert listed == served | {"sagemaker:AddTags"}
