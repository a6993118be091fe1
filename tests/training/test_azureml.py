"""The Azure Machine Learning backend's own promises, over TLS, with Azure's own library for the tokens."""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from airflow_mlops.core.errors import (
    ConflictError,
    InvalidSpecError,
    JobFailedError,
    NotFoundError,
    PlatformUnavailableError,
)
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.core.refs import DataVersion
from airflow_mlops.testing.azureml import AzureMLFake, azureml_fake
from airflow_mlops.training.backends import azureml_jobs
from airflow_mlops.training.backends.azureml import AzureMLBackend
from airflow_mlops.training.contract import FailureReason, JobHandle, JobState, JobStatus, TrainingSpec
from airflow_mlops.training.function import LIMIT, FunctionSource, function_call
from airflow_mlops.training.look import look

OWNER = TaskIdentity("dag", "run", "train")
VERSION = DataVersion("data/train", "v1", "c" * 40, "md5:0123", 3, repo="https://example.com/data.git")
REPORT = 'echo "{\\"metrics\\": {\\"auc\\": 0.9}}" > "$MLOPS_OUTPUT"'


class Workspace:
    """A fake with a backend, and what every test does with them."""

    def __init__(self, fake: AzureMLFake, **extra: Any) -> None:
        self.fake, self.backend = fake, AzureMLBackend.from_connection(fake.connection(**extra))

    def submit(self, script: str, name: str = "", **fields: Any) -> JobHandle:
        """Submit a shell script."""
        return self.backend.submit(spec(script, **fields), name=name or new_name(), owner=OWNER)

    def wait(self, job: JobHandle, *states: JobState) -> JobStatus:
        """Look until the job is in one of these states, or over."""
        wanted = states or tuple(state for state in JobState if state.terminal)
        return until(lambda: (found := self.look(job)).state in wanted and found)

    def look(self, job: JobHandle) -> JobStatus:
        """Look once."""
        return self.backend.observe([job])[job]

    def ended(self, script: str, **fields: Any) -> tuple[JobHandle, JobStatus]:
        """Run a shell script to its end."""
        job = self.submit(script, **fields)
        return job, self.wait(job)

    def printed(self, script: str, **fields: Any) -> str:
        """Return what a shell script printed that has succeeded."""
        job, status = self.ended(script, **fields)
        assert status.state is JobState.SUCCEEDED, (status, self.backend.read_log(job, 0))
        return self.backend.read_log(job, 0)[0]


def new_name() -> str:
    """Return a name nobody has used."""
    return f"aml-{uuid.uuid4().hex[:12]}"


def name_of(job: JobHandle) -> str:
    """Return the name of a job."""
    return job.job_id.rpartition("/")[2]


def spec(script: str, **fields: Any) -> TrainingSpec:
    """Return a spec that runs a shell script."""
    return TrainingSpec(("sh", "-c", script, "job"), **{"image": "train:1", **fields})


def until(found: Callable[[], Any], limit: float = 20.0) -> Any:
    """Ask until there is something, or time is up."""
    end = time.monotonic() + limit
    while not (answer := found()):
        assert time.monotonic() < end
        time.sleep(0.03)
    return answer


@pytest.fixture(scope="module")
def shared() -> Iterator[AzureMLFake]:
    """Run one workspace for the tests that leave it as it was."""
    with azureml_fake() as fake:
        yield fake


@pytest.fixture
def workspace(shared: AzureMLFake) -> Workspace:
    """Give the shared workspace."""
    return Workspace(shared)


@pytest.fixture
def own() -> Iterator[Workspace]:
    """Give a workspace of the test's own."""
    with azureml_fake() as fake:
        yield Workspace(fake)


# Exactly one


def test_a_lost_answer_makes_no_second_job(own: Workspace) -> None:
    """The order to start is sent again under the same name; the platform started one job."""
    own.fake.faults.lose_answers(2)
    job = own.submit("true", name="aml-lost")
    assert own.wait(job).state is JobState.SUCCEEDED
    assert own.fake.calls.count("PutJob") == 3
    assert own.fake.started() == 1


def test_a_job_that_exists_is_not_touched(own: Workspace) -> None:
    """Submitting what has ended asks for it and sends nothing."""
    own.ended("true", name="aml-once")
    own.fake.calls.reset()
    own.submit("true", name="aml-once")
    assert [call.verb for call in own.fake.calls.seen()] == ["GetJob"]


def test_two_at_once_with_other_specs_are_one_job_and_a_conflict(own: Workspace) -> None:
    """The second one was not seen before it was sent: the service refuses to change the job, and we say conflict."""
    own.submit("sleep 5", name="aml-race")
    backend: Any = own.backend
    backend._find = lambda name: None
    assert backend.submit(spec("sleep 5"), name="aml-race", owner=OWNER).job_id.endswith("/aml-race")
    with pytest.raises(ConflictError, match="aml-race"):
        backend.submit(spec("sleep 6"), name="aml-race", owner=OWNER)
    assert own.fake.started() == 1


def test_throttling_is_waited_out(own: Workspace) -> None:
    """429 is tried again, not before the service asks for it."""
    own.fake.faults.throttle(1, retry_after=2, verb="PutJob")
    began = time.monotonic()
    own.submit("true")
    assert time.monotonic() - began > 2.0
    assert own.fake.started() == 1


def test_failures_of_the_service_are_waited_out(own: Workspace) -> None:
    """5xx are tried again; the fourth one is an outage."""
    own.fake.faults.fail(3, code=503, verb="PutJob")
    own.submit("true")
    assert own.fake.started() == 1
    own.fake.faults.fail(4, code=500, verb="PutJob")
    with pytest.raises(PlatformUnavailableError, match="HTTP 500"):
        own.submit("true")


def test_a_platform_that_is_away_is_said_to_be(own: Workspace) -> None:
    """An outage is an error that may be retried, and the same name then finds its way."""
    job = own.submit("sleep 20")
    own.fake.crash()
    with pytest.raises(PlatformUnavailableError, match="did not answer"):
        own.look(job)
    own.fake.restart()
    assert own.wait(job, JobState.RUNNING).state is JobState.RUNNING


def test_a_refused_identity_never_shows_its_secret(own: Workspace) -> None:
    """The message says which connection to check; the secret is not in it."""
    info = own.fake.connection()
    bad = AzureMLBackend.from_connection(type(info)("azure", login=info.login, password="hush-hush", extra=info.extra))
    with pytest.raises(InvalidSpecError, match="'azure'") as caught:
        bad.locate("x")
    assert "hush-hush" not in str(caught.value) + repr(caught.value.__cause__)


def test_a_missing_right_is_said(own: Workspace) -> None:
    """403 is no outage: the message speaks of roles."""
    own.fake.faults.fail(1, code=403, verb="PutJob")
    with pytest.raises(InvalidSpecError, match="roles"):
        own.submit("true")


# Looking


def test_many_are_looked_at_with_the_list(own: Workspace) -> None:
    """25 jobs cost three pages; tokens are asked for once."""
    jobs = [own.submit("sleep 30") for _ in range(25)]
    own.fake.calls.reset()
    found = own.backend.observe(jobs)
    assert len(found) == 25
    assert [call.verb for call in own.fake.calls.seen()] == ["ListJobs"] * 3


def test_a_look_reads_no_further_than_its_jobs(own: Workspace) -> None:
    """The list is newest first: jobs of long ago are not read."""
    for _ in range(15):
        own.submit("true")
    young = [own.submit("true") for _ in range(5)]
    own.fake.calls.reset()
    assert len(own.backend.observe(young)) == 5
    assert own.fake.calls.count("ListJobs") == 1


def test_a_stale_list_makes_no_job_gone(own: Workspace) -> None:
    """A job that the list does not know yet is asked for alone, and is there."""
    jobs = [own.submit("sleep 30") for _ in range(4)]
    own.fake.faults.stale_lists = True
    assert len(own.backend.observe(jobs)) == 4
    late = own.submit("sleep 30")
    sight = look(own.backend, own.backend, [*jobs, late])
    assert (set(sight.found), list(sight.gone)) == ({*jobs, late}, [])


def test_a_deleted_job_is_gone(own: Workspace) -> None:
    """What the platform forgot is absent, from the list and alone."""
    jobs = [own.submit("sleep 30") for _ in range(5)]
    own.fake.delete_job(name_of(jobs[0]))
    sight = look(own.backend, own.backend, jobs)
    assert list(sight.gone) == [jobs[0]]


def test_archived_jobs_are_seen(own: Workspace) -> None:
    """A person who archives a running job does not hide it."""
    jobs = [own.submit("sleep 30") for _ in range(5)]
    own.fake.set_job(name_of(jobs[0]), isArchived=True)
    assert jobs[0] in own.backend.observe(jobs)


def test_jobs_of_another_workspace_are_not_ours(workspace: Workspace) -> None:
    """A job id of elsewhere is absent, and cancelling it does nothing here."""
    job = workspace.submit("sleep 30")
    other = JobHandle("azureml", f"sub/group/other/{name_of(job)}")
    assert workspace.backend.observe([other]) == {}
    workspace.backend.cancel(other)
    assert workspace.wait(job, JobState.RUNNING).state is JobState.RUNNING
    workspace.backend.cancel(job)


def test_a_word_nobody_knows_is_unknown(own: Workspace) -> None:
    """One odd job spoils no look at the others."""
    jobs = [own.submit("sleep 30") for _ in range(5)]
    own.fake.set_job(name_of(jobs[0]), status="Levitating")
    found = own.backend.observe(jobs)
    assert found[jobs[0]] == JobStatus(JobState.UNKNOWN, "Levitating")
    assert len(found) == 5


def test_why_a_job_failed_is_waited_for(own: Workspace) -> None:
    """While the run history is away a failed job is UNKNOWN, never a failure without its kind."""
    job, status = own.ended("exit 3")
    assert status.reason is FailureReason.USER_CODE
    own.fake.faults.fail(4, code=503, verb="GetDetails")
    assert own.look(job).state is JobState.UNKNOWN
    assert own.look(job) == status


# Ends


def test_out_of_time_is_a_timeout(own: Workspace) -> None:
    """The platform cancels a job after ``max_runtime``; it is a failure for that reason, and nobody's cancellation."""
    _, status = own.ended("sleep 60", max_runtime=1)
    assert (status.state, status.native, status.reason) == (JobState.FAILED, "Canceled", FailureReason.TIMEOUT)


def test_a_cancelled_job_ends_with_all_its_processes(workspace: Workspace) -> None:
    """On every node; it stays for the record as CANCELLED."""
    job = workspace.submit("sleep 60 & wait", nodes=2)
    processes = until(lambda: len(found := workspace.fake.process_ids(name_of(job))) == 2 and found)
    workspace.backend.cancel(job)
    assert workspace.wait(job).state is JobState.CANCELLED
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_cancelling_what_has_just_ended_is_no_error(own: Workspace) -> None:
    """The service refuses to cancel a job that is over; that it is over is what was wanted."""
    job, _ = own.ended("true")
    states = iter([False, True])
    backend: Any = own.backend
    backend._is_over = lambda name: next(states)
    own.backend.cancel(job)
    assert own.fake.calls.count("CancelJob", code=400) == 1


def test_taken_nodes_are_a_preemption(workspace: Workspace) -> None:
    """A spot job whose nodes are taken away is PREEMPTED, with what Azure says."""
    job = workspace.submit("sleep 60", spot=True)
    workspace.wait(job, JobState.RUNNING)
    workspace.fake.preempt(name_of(job))
    status = workspace.wait(job)
    assert status.state is JobState.PREEMPTED
    assert "PreemptionError" in status.detail


def test_what_ran_is_told(workspace: Workspace) -> None:
    """The seconds of a job count for each of its nodes, when it failed as when it succeeded."""
    job, _ = workspace.ended("sleep 0.5", nodes=2)
    assert 1.0 <= (workspace.backend.collect(job).billed_seconds or 0) < 10
    _, status = workspace.ended("sleep 0.3; exit 1")
    assert 0.3 <= (status.billed_seconds or 0) < 10


# What the job sees and leaves


def test_the_report_comes_back(workspace: Workspace) -> None:
    """Metrics, model, run and data versions are in the result."""
    script = 'echo "{\\"metrics\\": {\\"auc\\": 0.9}, \\"model_uri\\": \\"models:/m-1\\"}" > "$MLOPS_OUTPUT"'
    job, _ = workspace.ended(script, env={"MLFLOW_RUN_ID": "r1"}, inputs={"train": VERSION})
    found = workspace.backend.collect(job)
    assert (found.metrics, found.model_uri, found.run_id) == ({"auc": 0.9}, "models:/m-1", "r1")
    assert found.data == {"train": VERSION}


def test_a_lost_report_is_an_error(workspace: Workspace) -> None:
    """Without a run to be read instead, a report that is gone is said to be; with one, it is not waited for."""
    job, _ = workspace.ended('rm "$MLOPS_OUTPUT"')
    with pytest.raises(NotFoundError, match="mlops_output"):
        workspace.backend.collect(job)
    job, _ = workspace.ended('rm "$MLOPS_OUTPUT"', env={"MLFLOW_RUN_ID": "r2"})
    assert workspace.backend.collect(job).run_id == "r2"


@pytest.mark.parametrize("text", ["not json", '{"metrics": {"a": "x"}}', '{"metrics": {"a": 1'])
def test_a_wrong_report_is_an_error(workspace: Workspace, text: str) -> None:
    """What is cut or wrong is never read as nothing."""
    job, _ = workspace.ended(f"printf '%s' '{text}' > \"$MLOPS_OUTPUT\"")
    with pytest.raises(JobFailedError, match="mlops_output"):
        workspace.backend.collect(job)


def test_the_report_of_node_0_counts(workspace: Workspace) -> None:
    """Whatever other nodes write, and although Azure puts the folders of all nodes into one place."""
    script = f'test "$MLOPS_NODE_RANK" = 0 && {REPORT} || echo "{{}}" > "$MLOPS_OUTPUT"'
    job, status = workspace.ended(script, nodes=3)
    assert status.state is JobState.SUCCEEDED
    assert workspace.backend.collect(job).metrics == {"auc": 0.9}


@pytest.mark.parametrize("distribution", ["pytorch", "mpi", "tensorflow"])
def test_nodes_know_each_other(workspace: Workspace, distribution: str) -> None:
    """Every way to distribute gives rank, size and master; the log is that of node 0."""
    script = 'echo "$MLOPS_NODE_RANK of $MLOPS_NODES at $MLOPS_MASTER_ADDR:${MLOPS_MASTER_PORT:?}"'
    text = workspace.printed(script, nodes=2, options={"distribution": distribution})
    assert text.startswith("0 of 2 at 127.0.0.1:")


def test_a_failing_node_ends_the_job(workspace: Workspace) -> None:
    """Node 1 fails: the job has failed, and node 0 does not run on."""
    _, status = workspace.ended('test "$MLOPS_NODE_RANK" = 0 && sleep 60 || exit 7', nodes=2)
    assert status.state is JobState.FAILED
    assert "7" in status.detail


def test_our_tracking_wins_inside_the_job(workspace: Workspace) -> None:
    """The platform sets its own variables last; the program sees ours all the same, and not Azure's token."""
    ours = {"MLFLOW_TRACKING_URI": "https://mlflow.example", "MLFLOW_RUN_ID": "ours", "MLFLOW_EXPERIMENT_ID": "1"}
    script = 'echo "$MLFLOW_TRACKING_URI $MLFLOW_RUN_ID <$MLFLOW_TRACKING_TOKEN>"'
    assert workspace.printed(script, env=ours) == "https://mlflow.example ours <>\n"
    assert "azureml://" in workspace.printed(script)


def test_checkpoints_are_the_same_place_for_the_next_attempt(workspace: Workspace) -> None:
    """A datastore is mounted: what one job leaves there the next one finds."""
    place = "azureml://datastores/workspaceblobstore/paths/checkpoints/a"
    assert workspace.printed('echo 41 > "$MLOPS_CHECKPOINT_DIR/epoch"', checkpoint=place) == ""
    assert workspace.printed('cat "$MLOPS_CHECKPOINT_DIR/epoch"', checkpoint=place) == "41\n"


def test_a_long_log_is_read_in_whole_lines(workspace: Workspace) -> None:
    """While the job runs no half line is told; after its end nothing is missing."""
    job = workspace.submit("echo one; printf two; sleep 3; echo -more; printf end")
    workspace.wait(job, JobState.RUNNING)
    text, offset = until(lambda: (found := workspace.backend.read_log(job, 0))[0] and found)
    assert (text, offset) == ("one\n", 4)
    workspace.wait(job)
    assert workspace.backend.read_log(job, offset) == ("two-more\nend", 16)


def test_a_line_of_any_length_is_read_in_pieces(workspace: Workspace) -> None:
    """A chunk without an end of line is told as it is; what follows is told when the job is over."""
    job = workspace.submit("head -c 1500000 /dev/zero | tr '\\0' x; sleep 3")
    workspace.wait(job, JobState.RUNNING)
    text, offset = until(lambda: (found := workspace.backend.read_log(job, 0))[0] and found)
    assert (len(text), offset) == (1 << 20, 1 << 20)
    assert workspace.backend.read_log(job, offset) == ("", offset)
    workspace.wait(job)
    text, offset = workspace.backend.read_log(job, offset)
    assert (text.strip("x"), offset) == ("", 1500000)


def test_a_log_that_cannot_be_read_stops_nothing(own: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    """A storage account in a network of its own: a warning, and no signed address in it."""
    job, _ = own.ended("echo hello")
    own.fake.set_run(name_of(job), logFiles={"user_logs/std_log.txt": "https://127.0.0.1:9/blob?sig=signed-secret"})
    assert own.backend.read_log(job, 0) == ("", 0)
    assert "cannot be read" in caplog.text
    assert "signed-secret" not in caplog.text


def test_a_function_of_the_largest_size_runs(workspace: Workspace) -> None:
    """What ``@task.train`` sends at most, with the quotes of ordinary code, fits into one command."""
    line = "    words = ['it', \"it's\", '${{inputs.x}}', \"$HOME `id` $(id)\"]  # one of many such lines of code\n"
    text = "def train():\n" + line * ((LIMIT - 100) // len(line)) + "    return {'metrics': {'words': len(words)}}\n"
    call = function_call(FunctionSource("train", "train.py", 1, text), lambda: None, (), {}, python=sys.executable)
    fields = {"command": call.command, "args": call.args, "parameters": call.parameters}
    job = workspace.backend.submit(replace(spec("true"), **fields), name=new_name(), owner=OWNER)
    assert workspace.wait(job).state is JobState.SUCCEEDED, workspace.backend.read_log(job, 0)
    assert workspace.backend.collect(job).metrics == {"words": 4.0}


# Secrets


def test_a_secret_reaches_the_program_and_nothing_else(own: Workspace) -> None:
    """Its value is in no job description; the job reads it with its own identity, whatever is in it."""
    own.fake.vault["api-key"] = value = "planted 'secret' $HOME\nline"
    script = 'test "$(printf %s "$TOKEN" | wc -c)" = 27 && echo good'
    text = own.printed(script, secret_env={"TOKEN": f"{own.fake.address}/secrets/api-key"})
    assert text == "good\n"
    assert len(value) == 27
    assert "planted" not in json.dumps(own.fake.jobs())


def test_a_user_is_an_identity_too(own: Workspace) -> None:
    """A job that runs as a user reads the vault as that user."""
    own.fake.vault["api-key"] = "v"
    fields = {"secret_env": {"TOKEN": f"{own.fake.address}/secrets/api-key"}, "options": {"identity": "user"}}
    assert own.printed('echo "$TOKEN"', **fields) == "v\n"


@pytest.mark.parametrize(("identity", "said"), [("managed", "HTTP 404"), ("aml_token", "no identity")])
def test_a_secret_that_cannot_be_read_fails_the_job(own: Workspace, identity: str, said: str) -> None:
    """The program never starts without it, and the log says why."""
    fields = {"secret_env": {"TOKEN": f"{own.fake.address}/secrets/missing"}, "options": {"identity": identity}}
    job, status = own.ended("echo started", **fields)
    text, _ = own.backend.read_log(job, 0)
    assert status.state is JobState.FAILED
    assert said in text
    assert "started" not in text


# Assets and options


def test_an_image_becomes_one_environment(own: Workspace) -> None:
    """Two jobs of the same image share its environment, which is made once."""
    own.submit("true")
    own.submit("true")
    own.submit("true", image="train:2")
    assert own.fake.calls.count("PutEnvironment") == 2
    assert len({job["properties"]["environmentId"] for job in own.fake.jobs()}) == 2


def test_unknown_places_are_refused_by_the_platform(own: Workspace) -> None:
    """An environment or a compute target that is not there is an error at once, and no job is left behind."""
    with pytest.raises(NotFoundError, match="environments/nope/versions/1"):
        own.submit("true", image="azureml:nope:1")
    with pytest.raises(InvalidSpecError, match="computes/nope"):
        own.submit("true", options={"compute": "nope"})
    assert own.fake.started() == 0


def test_a_connection_gives_the_compute_targets(shared: AzureMLFake) -> None:
    """The defaults of the connection hold, for spot the one of low priority."""
    workspace = Workspace(shared, compute="cpu", spot_compute="cheap")
    for spot, compute in ((False, "cpu"), (True, "cheap")):
        job, _ = workspace.ended("true", spot=spot)
        found = next(one for one in shared.jobs() if one["name"] == name_of(job))
        assert found["properties"]["computeId"].endswith(f"/computes/{compute}")


def test_the_sweep_sees_only_ours(own: Workspace) -> None:
    """Jobs of strangers have no owner; ours have theirs, archived ones too."""
    job = own.submit("true")
    own.fake.set_job(name_of(job), isArchived=True)
    stranger = own.submit("true")
    own.fake.set_job(name_of(stranger), properties={})
    assert list(own.backend.managed()) == [(job, OWNER)]


def test_a_look_never_reads_the_whole_past(own: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that are not among the newest are absent from the answer, and cost no more pages."""
    jobs = [own.submit("true") for _ in range(25)]
    monkeypatch.setattr(azureml_jobs, "MOST", 9)
    own.fake.calls.reset()
    found = own.backend.observe(jobs[:5])
    assert (found, own.fake.calls.count("ListJobs")) == ({}, 1)
