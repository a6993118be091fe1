"""Jobs on Vertex AI under faults: one job for one name, none that bills on, secrets that nobody can read."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

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
from airflow_mlops.testing.vertex import BUCKET, PROJECT, REGION, VertexFake, vertex_fake
from airflow_mlops.training.backends.vertex import VertexBackend
from airflow_mlops.training.contract import FailureReason, JobHandle, JobState, JobStatus, TrainingSpec

OWNER = TaskIdentity("dag", "manual__2026-01-01T00:00:00+00:00", "train", 3, "prod")
ACTIVE = (1, 2, 3)
REPORT = 'echo "{\\"metrics\\": {\\"auc\\": 0.9}, \\"model_uri\\": \\"models:/m-1\\"}" > "$MLOPS_OUTPUT"'


@pytest.fixture
def fake() -> Iterator[VertexFake]:
    """Run Vertex AI for one test."""
    with vertex_fake() as found:
        yield found


@pytest.fixture
def backend(fake: VertexFake) -> VertexBackend:
    """Get in."""
    return another(fake)


def another(fake: VertexFake) -> VertexBackend:
    """Return a backend of another process."""
    return VertexBackend.from_connection(fake.connection())


def spec(script: str = "sleep 60", **fields: Any) -> TrainingSpec:
    """Run a script in an image."""
    return TrainingSpec(("sh", "-c", script, "job"), **{"image": "busybox:1", **fields})


def until(backend: VertexBackend, handle: JobHandle, *states: JobState) -> JobStatus:
    """Look until the job is in one of *states*."""
    end = time.monotonic() + 30
    while (status := backend.observe([handle])[handle]).state not in states:
        assert time.monotonic() < end, status
        time.sleep(0.05)
    return status


def ended(backend: VertexBackend, handle: JobHandle) -> JobStatus:
    """Wait for the end."""
    return until(backend, handle, *(state for state in JobState if state.terminal))


def active(fake: VertexFake, name: str) -> list[dict[str, Any]]:
    """Return the jobs with one name that go on, as the platform knows them."""
    return [job for job in fake.jobs(label=name) if job["state"] in ACTIVE]


# Exactly once


def test_a_lost_answer_leaves_one_job(fake: VertexFake, backend: VertexBackend) -> None:
    """The job whose creation was not answered is found by its label; nothing is ordered a second time."""
    fake.faults.lose_answers(1, resource="customJobs")
    handle = backend.submit(spec(), name="aml-x", owner=OWNER)
    assert fake.calls.count("create", "customJobs") == 1
    assert [job["name"].rpartition("/")[2] for job in fake.jobs()] == [handle.job_id.rpartition("/")[2]]


def test_a_creation_that_may_have_failed_is_not_repeated(fake: VertexFake, backend: VertexBackend) -> None:
    """A 503 may hide a job that appears late: the try ends, and the next one finds it."""
    fake.faults.lose_answers(1, resource="customJobs", late=4.5)
    with pytest.raises(PlatformUnavailableError):
        backend.submit(spec(), name="aml-x", owner=OWNER)
    fake.faults.settle()
    handle = another(fake).submit(spec(), name="aml-x", owner=OWNER)
    assert fake.calls.count("create", "customJobs") == 1
    assert fake.jobs()[0]["name"].endswith(handle.job_id.rpartition("/")[2])


def test_a_refused_creation_is_repeated(fake: VertexFake, backend: VertexBackend) -> None:
    """A throttled request had no effect, so it may be sent again."""
    fake.faults.throttle(2, verb="create", retry_after=0)
    backend.submit(spec(), name="aml-x", owner=OWNER)
    assert len(fake.jobs()) == 1


def duplicates(fake: VertexFake) -> tuple[JobHandle, JobHandle]:
    """Let two workers start the same name while lists are stale; return the older job and the younger."""
    fake.freeze_lists()
    first = another(fake).submit(spec(), name="aml-x", owner=OWNER)
    second = another(fake).submit(spec(), name="aml-x", owner=OWNER)
    assert first != second
    assert len(active(fake, "aml-x")) == 2
    return first, second


def test_of_two_the_oldest_is_the_job(fake: VertexFake, backend: VertexBackend) -> None:
    """As soon as a list shows both, who locates the job gets the older one, and the other is stopped."""
    older, younger = duplicates(fake)
    fake.freeze_lists(is_frozen=False)
    assert backend.locate("aml-x") == older
    assert backend.submit(spec(), name="aml-x", owner=OWNER) == older
    assert [job["name"].rpartition("/")[2] for job in active(fake, "aml-x")] == [older.job_id.rpartition("/")[2]]
    assert len(fake.jobs()) == 2
    assert younger.job_id != older.job_id


@pytest.mark.parametrize("alone", [True, False])
def test_a_look_stops_the_stray_and_tells_of_the_job(fake: VertexFake, backend: VertexBackend, alone: bool) -> None:
    """Who recorded the younger job sees the older one from then on, in a look at one as in a look at many."""
    older, younger = duplicates(fake)
    other = backend.submit(spec(), name="aml-other", owner=OWNER)
    fake.freeze_lists(is_frozen=False)
    until(backend, other, JobState.RUNNING)
    handles = [younger] if alone else [younger, older, other]
    end = time.monotonic() + 10
    while (found := backend.observe(handles))[younger].state is not JobState.RUNNING:
        assert time.monotonic() < end, found
    assert {status.state for status in found.values()} == {JobState.RUNNING}
    assert len(active(fake, "aml-x")) == 1


def test_a_cancel_ends_all_of_one_name(fake: VertexFake, backend: VertexBackend) -> None:
    """Whichever of two is cancelled, neither bills on."""
    _, younger = duplicates(fake)
    fake.freeze_lists(is_frozen=False)
    backend.cancel(younger)
    end = time.monotonic() + 20
    while active(fake, "aml-x") or {job["state"] for job in fake.jobs()} != {7}:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_workers_that_submit_at_once_agree(fake: VertexFake) -> None:
    """Six submissions of one name at the same time: all who look afterwards see one and the same job."""
    threads = [
        threading.Thread(target=lambda: another(fake).submit(spec(), name="aml-x", owner=OWNER)) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({handle.job_id for handle in (another(fake).locate("aml-x") for _ in range(3)) if handle}) == 1
    assert len(active(fake, "aml-x")) == 1


def test_in_mode_pipeline_there_is_never_a_second(fake: VertexFake) -> None:
    """The id is the name: with stale lists and lost answers the platform itself refuses another."""
    fake.freeze_lists()
    fake.faults.lose_answers(1, verb="create", resource="pipelineJobs")
    exact = spec(options={"mode": "pipeline"})
    handles = {another(fake).submit(exact, name="aml-x", owner=OWNER) for _ in range(3)}
    assert handles == {
        JobHandle(
            "vertex",
            f"{PROJECT}/{REGION}/aml-x",
            f"https://console.cloud.google.com/vertex-ai/locations/{REGION}/pipelines/runs/aml-x?project={PROJECT}",
        )
    }
    assert len(fake.jobs("pipelineJobs")) == 1


def test_the_other_mode_is_another_spec(fake: VertexFake, backend: VertexBackend) -> None:
    """One name stands for one job whatever its mode: the second is a conflict, and nothing is started."""
    backend.submit(spec(), name="aml-x", owner=OWNER)
    with pytest.raises(ConflictError, match="aml-x"):
        backend.submit(spec(options={"mode": "pipeline"}), name="aml-x", owner=OWNER)
    assert fake.jobs("pipelineJobs") == []


# Looking


def test_a_stale_list_makes_no_job_gone(fake: VertexFake, backend: VertexBackend) -> None:
    """A job that a list does not show yet is asked for directly."""
    fake.freeze_lists()
    handles = [backend.submit(spec(), name=f"aml-{number}", owner=OWNER) for number in range(3)]
    assert set(backend.observe(handles)) == set(handles)


def test_many_jobs_cost_pages_only(fake: VertexFake, backend: VertexBackend) -> None:
    """While jobs run, a look at all of them is a list, a page for every hundred, and no job is asked for alone."""
    handles = [backend.submit(spec("sleep 60"), name=f"aml-{number}", owner=OWNER) for number in range(12)]
    fake.calls.reset()
    assert len(backend.observe(handles)) == 12
    assert (fake.calls.count("list", "customJobs"), fake.calls.count("get")) == (1, 0)


def test_pages_are_read_to_the_end(fake: VertexFake, backend: VertexBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """More jobs than fit on a page are all found."""
    monkeypatch.setattr("airflow_mlops.platforms.gcp.PAGE", 5)
    handles = [backend.submit(spec("sleep 60"), name=f"aml-{number}", owner=OWNER) for number in range(12)]
    fake.calls.reset()
    assert len(backend.observe(handles)) == 12
    assert fake.calls.count("list", "customJobs") == 3
    assert len(list(backend.managed())) == 12


def test_an_unknown_state_waits(fake: VertexFake, backend: VertexBackend) -> None:
    """A state that a later release may have is UNKNOWN, and PAUSED is no success."""
    handle = backend.submit(spec(), name="aml-x", owner=OWNER)
    until(backend, handle, JobState.RUNNING)
    for state, expected in ((77, JobState.UNKNOWN), (8, JobState.PENDING), (10, JobState.RUNNING)):
        fake.set_job(handle.job_id, state=state)
        assert backend.observe([handle])[handle].state is expected


def test_a_deleted_job_is_absent(fake: VertexFake, backend: VertexBackend) -> None:
    """A job that a person deleted is not in the answer, and cancelling it is no error."""
    handle = backend.submit(spec(), name="aml-x", owner=OWNER)
    fake.delete_job(handle.job_id)
    assert backend.observe([handle]) == {}
    backend.cancel(handle)
    with pytest.raises(NotFoundError, match=r"no job"):
        backend.collect(handle)


def test_a_server_that_fails_is_asked_again_and_then_named(fake: VertexFake, backend: VertexBackend) -> None:
    """Two 503 are nothing; a server that stays away is PlatformUnavailableError, and after a restart all is well."""
    handle = backend.submit(spec(), name="aml-x", owner=OWNER)
    fake.faults.fail(2, verb="get")
    assert handle in backend.observe([handle])
    fake.crash()
    with pytest.raises(PlatformUnavailableError, match="'vertex'"):
        backend.observe([handle])
    fake.restart()
    assert handle in backend.observe([handle])


def test_quota_and_rights_are_told_apart(fake: VertexFake, backend: VertexBackend) -> None:
    """No machines left is a quota to wait for; a missing right is for a person, with the server's words."""
    fake.faults.exceed_quota(1)
    with pytest.raises(QuotaExceededError, match="custom_model_training_cpus"):
        backend.submit(spec(), name="aml-x", owner=OWNER)
    fake.faults.fail(1, code=403, verb="create")
    with pytest.raises(InvalidSpecError, match="right"):
        backend.submit(spec(), name="aml-x", owner=OWNER)
    assert fake.jobs() == []


# What programs see and tell


def test_the_report_is_what_the_program_wrote(fake: VertexFake, backend: VertexBackend) -> None:
    """Metrics, model and data versions come back; the report is an object beside the job's other output."""
    version = DataVersion("data/train", "main", "c0ffee", "md5:1", 10)
    wanted = spec(REPORT, inputs={"train": version}, env={"MLFLOW_RUN_ID": "run-1"})
    handle = backend.submit(wanted, name="aml-x", owner=OWNER)
    assert ended(backend, handle).state is JobState.SUCCEEDED
    found = backend.collect(handle)
    assert (found.metrics, found.model_uri, found.run_id) == ({"auc": 0.9}, "models:/m-1", "run-1")
    assert found.data == {"train": version}
    assert (fake.buckets / BUCKET / "jobs" / "aml-x" / "report.json").is_file()


def test_a_lost_report_is_an_error(fake: VertexFake, backend: VertexBackend) -> None:
    """Nothing reported and nothing there are different things; only a tracking run makes up for the second."""
    for name, env in (("aml-x", {}), ("aml-y", {"MLFLOW_RUN_ID": "run-1"})):
        handle = backend.submit(spec(REPORT, env=env), name=name, owner=OWNER)
        ended(backend, handle)
        (fake.buckets / BUCKET / "jobs" / name / "report.json").unlink()
        if env:
            assert backend.collect(handle).run_id == "run-1"
        else:
            with pytest.raises(NotFoundError, match=r"report\.json is gone"):
                backend.collect(handle)


def test_a_report_that_cannot_be_kept_fails_the_job(fake: VertexFake, backend: VertexBackend) -> None:
    """A program that ended well is not a success when its report could not be stored."""
    (fake.buckets / BUCKET / "jobs").mkdir()
    (fake.buckets / BUCKET / "jobs" / "aml-x").write_text("in the way")
    handle = backend.submit(spec(REPORT), name="aml-x", owner=OWNER)
    status = ended(backend, handle)
    assert status.state is JobState.FAILED
    assert "the report could not be kept" in status.detail


def test_a_broken_report_fails(fake: VertexFake, backend: VertexBackend) -> None:
    """What is no JSON is never read as nothing."""
    handle = backend.submit(spec('echo "{" > "$MLOPS_OUTPUT"'), name="aml-x", owner=OWNER)
    ended(backend, handle)
    with pytest.raises(JobFailedError, match="not JSON"):
        backend.collect(handle)


def test_a_failure_has_its_last_lines(fake: VertexFake, backend: VertexBackend) -> None:
    """The status of a failed job tells what the program printed last."""
    handle = backend.submit(spec("echo ValueError: no rows; exit 41"), name="aml-x", owner=OWNER)
    status = ended(backend, handle)
    assert status.reason is FailureReason.USER_CODE
    assert "status of 41" in status.detail
    assert status.detail.endswith("ValueError: no rows")
    assert fake.started(handle.job_id) == 1


def test_a_log_that_cannot_be_read_fails_nothing(fake: VertexFake, backend: VertexBackend) -> None:
    """Without the right to read logs jobs run all the same, and a failure tells less."""
    handle = backend.submit(spec("echo hi; exit 3"), name="aml-x", owner=OWNER)
    fake.faults.fail(100, code=403, verb="entries")
    status = ended(backend, handle)
    assert "status of 3" in status.detail
    assert backend.read_log(handle, 0) == ("", 0)


def test_nodes_find_each_other(fake: VertexFake, backend: VertexBackend) -> None:
    """Each of three nodes knows its rank and the address of the first; only the first reports."""
    seen = f"{fake.buckets}/{BUCKET}/ranks"
    line = "$MLOPS_NODES $MLOPS_NODE_RANK $MLOPS_MASTER_ADDR:$MLOPS_MASTER_PORT"
    script = f'echo "{line}" >> {seen}; sleep 0.5; {REPORT}'
    handle = backend.submit(spec(script, nodes=3), name="aml-x", owner=OWNER)
    status = ended(backend, handle)
    assert status.state is JobState.SUCCEEDED, status
    with open(seen) as lines:
        found = sorted(line.split() for line in lines)
    assert [(nodes, rank) for nodes, rank, _ in found] == [("3", "0"), ("3", "1"), ("3", "2")]
    assert len({master for _, _, master in found}) == 1
    assert backend.collect(handle).metrics == {"auc": 0.9}


def test_secrets_reach_the_program_and_nobody_else(fake: VertexFake, backend: VertexBackend) -> None:
    """A reference is resolved inside the job; no description, log or report has the value."""
    value = "s3cr3t 'quoted' $HOME `id`\nsecond line"
    fake.services.keep_secret(PROJECT, "token", value)
    check = f'[ "$TOKEN" = "$(cat {fake.buckets}/value)" ] && [ -z "$MLOPS_SECRETS" ] || exit 9'
    (fake.buckets / "value").write_text(value)
    wanted = spec(f"{check}; {REPORT}", secret_env={"TOKEN": "token/latest"})
    handle = backend.submit(wanted, name="aml-x", owner=OWNER)
    assert ended(backend, handle).state is JobState.SUCCEEDED
    told = json.dumps([fake.jobs(), backend.read_log(handle, 0), handle.to_dict(), backend.collect(handle).to_dict()])
    assert "s3cr3t" not in told
    assert "s3cr3t" not in (fake.buckets / BUCKET / "jobs" / "aml-x" / "report.json").read_text()


def test_a_secret_that_is_not_there_fails_the_job(fake: VertexFake, backend: VertexBackend) -> None:
    """The program is not started without it."""
    handle = backend.submit(
        spec("touch started", secret_env={"TOKEN": "projects/acme/secrets/no-such-secret/versions/1"}),
        name="aml-x",
        owner=OWNER,
    )
    until(backend, handle, JobState.RUNNING, JobState.FAILED)
    status = ended(backend, handle)
    assert "the job could not be prepared" in status.detail


def test_what_runs_too_long_timed_out(fake: VertexFake, backend: VertexBackend) -> None:
    """The platform ends it by itself, and the reason is its time, whatever word the platform has."""
    handle = backend.submit(spec("sleep 60", max_runtime=1.0), name="aml-x", owner=OWNER)
    status = ended(backend, handle)
    assert (status.state, status.reason) == (JobState.FAILED, FailureReason.TIMEOUT)


def test_a_preempted_attempt_goes_on_from_its_checkpoint(fake: VertexFake, backend: VertexBackend) -> None:
    """SPOT: the attempt is PREEMPTED after the program was told; the next finds what the one before kept."""
    script = (
        'trap "echo half > $MLOPS_CHECKPOINT_DIR/state; exit 0" TERM\n'
        'if [ -e "$MLOPS_CHECKPOINT_DIR/state" ]; then cat "$MLOPS_CHECKPOINT_DIR/state"; exit 0; fi\n'
        "sleep 60 & wait"
    )
    wanted = spec(script, spot=True, checkpoint=f"gs://{BUCKET}/checkpoints/aml-first")
    first = backend.submit(wanted, name="aml-1", owner=OWNER)
    until(backend, first, JobState.RUNNING)
    time.sleep(0.3)
    fake.preempt(first.job_id)
    assert ended(backend, first).state is JobState.PREEMPTED
    second = backend.submit(wanted, name="aml-2", owner=OWNER)
    assert ended(backend, second).state is JobState.SUCCEEDED
    assert backend.read_log(second, 0)[0] == "half\n"


def test_the_platform_may_be_left_to_try_again(fake: VertexFake, backend: VertexBackend) -> None:
    """With disable_retries false Vertex AI starts a preempted program again: the job goes on."""
    wanted = spec("sleep 60", spot=True, options={"disable_retries": False})
    handle = backend.submit(wanted, name="aml-1", owner=OWNER)
    until(backend, handle, JobState.RUNNING)
    fake.preempt(handle.job_id)
    end = time.monotonic() + 10
    while fake.started(handle.job_id) < 2:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert backend.observe([handle])[handle].state is JobState.RUNNING


def test_a_log_is_read_on_in_pieces(fake: VertexFake, backend: VertexBackend) -> None:
    """Every line once, in order, from offset to offset, also while lines are left for later."""
    handle = backend.submit(spec("for i in $(seq 2500); do echo line $i; done"), name="aml-x", owner=OWNER)
    ended(backend, handle)
    text, offset = "", 0
    while True:
        piece, offset = backend.read_log(handle, offset)
        if not piece:
            break
        text += piece
    assert text.splitlines() == [f"line {number}" for number in range(1, 2501)]
