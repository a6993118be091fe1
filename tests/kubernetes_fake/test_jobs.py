"""A Job's life: its pods really run, and its status is written as Kubernetes 1.31 and later writes it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from kubernetes import client, watch

MERGE = "application/merge-patch+json"


def is_alive(process: int) -> bool:
    """Say whether a process (or a zombie) has this id."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_job_runs_to_success(session: Any) -> None:
    """The command runs with its environment, its output is the log, and both conditions are written."""
    env = [{"name": "WHO", "value": "you"}, {"name": "TOLD", "value": "hello $(WHO)"}]
    session.submit("good", 'echo "$TOLD from $HOSTNAME"; seq 3', env=env)
    reached = {"SuccessCriteriaMet": "CompletionsReached", "Complete": "CompletionsReached"}
    assert session.finished("good") == reached
    status, (pod,) = session.job("good").status, session.pods("good")
    assert (status.succeeded, status.failed, status.active) == (1, None, None)
    assert status.completion_time is not None
    assert pod.status.container_statuses[0].state.terminated.reason == "Completed"
    name = pod.metadata.name
    assert session.log(name) == f"hello you from {name}\n1\n2\n3\n"
    assert session.log(name, tail_lines=2) == "2\n3\n"
    assert {"Scheduled", "Started"} <= set(session.reasons(name))


def test_a_job_runs_to_failure(session: Any) -> None:
    """Each failed pod is kept and counted; past the limit the Job fails with its reason."""
    session.submit("bad", "echo oops; exit 3", backoffLimit=1)
    reason = "BackoffLimitExceeded"
    assert session.finished("bad") == {"FailureTarget": reason, "Failed": reason}
    assert session.job("bad").status.failed == 2
    codes = [pod.status.container_statuses[0].state.terminated.exit_code for pod in session.pods("bad")]
    assert codes == [3, 3]
    assert reason in session.reasons("bad")


def test_a_log_is_followed_while_it_is_written(session: Any, tmp_path: Any) -> None:
    """Lines arrive before the command ends, and the stream ends with it."""
    gate = tmp_path / "gate"
    session.submit("talks", f"echo one; while [ ! -e {gate} ]; do sleep 0.02; done; echo two")
    name = session.pod("talks").metadata.name
    lines = watch.Watch().stream(session.core.read_namespaced_pod_log, name, "default")
    assert next(lines) == "one"
    gate.touch()
    assert list(lines) == ["two"]


def test_a_deleted_job_stops_its_process(session: Any, until: Callable[..., Any]) -> None:
    """With Background propagation the pod gets SIGTERM and, deaf to it, SIGKILL after its grace; then it is gone."""
    session.submit("deaf", "trap '' TERM; while true; do sleep 0.05; done")
    process = session.fake.process_id(session.pod("deaf").metadata.name)
    assert is_alive(process)
    session.batch.delete_namespaced_job("deaf", "default", propagation_policy="Background")
    until(lambda: not session.pods("deaf"))
    assert not is_alive(process)


def test_a_job_deleted_without_a_policy_leaves_its_pod(session: Any, until: Callable[..., Any]) -> None:
    """The default of batch/v1 is to orphan: the process goes on until the pod itself is deleted."""
    session.submit("orphan", "sleep 60")
    pod = session.pod("orphan")
    session.batch.delete_namespaced_job("orphan", "default")
    process = session.fake.process_id(pod.metadata.name)
    assert is_alive(process)
    session.core.delete_namespaced_pod(pod.metadata.name, "default", grace_period_seconds=0)
    until(lambda: not is_alive(process))


def test_a_failure_policy_decides(session: Any) -> None:
    """FailJob ends the Job at the first pod with that exit code, whatever the limit allows."""
    codes = {"operator": "In", "values": [42]}
    policy = {"rules": [{"action": "FailJob", "onExitCodes": codes}]}
    session.submit("final", "exit 42", backoffLimit=5, podFailurePolicy=policy)
    assert session.finished("final")["Failed"] == "PodFailurePolicy"
    assert session.job("final").status.failed == 1
    told = next(one.message for one in session.job("final").status.conditions if one.type == "Failed")
    assert "failed with exit code 42 matching FailJob rule at index 0" in told


def test_a_preempted_pod_is_replaced_and_not_counted(session: Any, until: Callable[..., Any]) -> None:
    """With Ignore on DisruptionTarget the limit of 0 is not touched: a second pod comes."""
    pattern = {"type": "DisruptionTarget", "status": "True"}
    policy = {"rules": [{"action": "Ignore", "onPodConditions": [pattern]}]}
    session.submit("spot", "sleep 60", podFailurePolicy=policy)
    first = session.pod("spot")
    session.fake.preempt(first.metadata.name)
    names = lambda: {pod.metadata.name for pod in session.pods("spot") if pod.status.phase == "Running"}  # noqa: E731
    until(lambda: names() and first.metadata.name not in names())
    assert session.job("spot").status.failed is None
    session.batch.delete_namespaced_job("spot", "default", propagation_policy="Foreground")
    until(lambda: not session.pods("spot"))


def test_a_secret_reaches_the_process_only(session: Any, until: Callable[..., Any]) -> None:
    """Without the Secret the pod waits and says why; with it the process has the value and the Job shows none."""
    reference = {"secretKeyRef": {"name": "door", "key": "code"}}
    session.submit("keeps", "echo $CODE", env=[{"name": "CODE", "valueFrom": reference}])

    def waiting() -> Any:
        found = session.pod("keeps", "Pending").status.container_statuses
        return found and found[0].state.waiting

    assert until(waiting).reason == "CreateContainerConfigError"
    name = session.pod("keeps", "Pending").metadata.name
    until(lambda: "Failed" in session.reasons(name))
    secret = client.V1Secret(metadata=client.V1ObjectMeta(name="door"), string_data={"code": "1234"})
    session.core.create_namespaced_secret("default", secret)
    assert "Complete" in session.finished("keeps")
    assert session.log(name) == "1234\n"
    assert "1234" not in str(session.job("keeps"))


def test_time_is_up(session: Any) -> None:
    """A Job past its deadline fails as DeadlineExceeded and its process is gone."""
    session.submit("slow", "sleep 60", activeDeadlineSeconds=1)
    process = session.fake.process_id(session.pod("slow").metadata.name)
    assert session.finished("slow")["Failed"] == "DeadlineExceeded"
    assert not is_alive(process)


def test_indexes_are_completed_one_by_one(session: Any) -> None:
    """An Indexed Job runs one pod per index, each knows its own, and the status lists them."""
    spec = {"completions": 3, "parallelism": 2, "completionMode": "Indexed"}
    session.submit("wide", "echo $JOB_COMPLETION_INDEX", **spec)
    assert "Complete" in session.finished("wide")
    assert session.job("wide").status.completed_indexes == "0-2"
    logs = [session.log(pod.metadata.name) for pod in session.pods("wide")]
    assert sorted(logs) == ["0\n", "1\n", "2\n"]


def test_a_suspended_job_waits_and_an_old_one_goes(session: Any, until: Callable[..., Any]) -> None:
    """A suspended Job has no pod until it is resumed; a finished one with a time to live removes itself."""
    session.submit("later", "true", suspend=True, ttlSecondsAfterFinished=0)
    until(lambda: session.job("later").status.conditions)
    assert [one.reason for one in session.job("later").status.conditions] == ["JobSuspended"]
    assert session.pods("later") == []
    session.batch.patch_namespaced_job("later", "default", {"spec": {"suspend": False}}, _content_type=MERGE)
    names = lambda: [one.metadata.name for one in session.batch.list_namespaced_job("default").items]  # noqa: E731
    until(lambda: "later" not in names() and not session.pods("later"))


def test_memory_runs_out(session: Any) -> None:
    """A pod killed for its memory says OOMKilled and 137."""
    session.submit("greedy", "sleep 60")
    session.fake.out_of_memory(session.pod("greedy").metadata.name)
    ended = session.pod("greedy", "Failed").status.container_statuses[0].state.terminated
    assert (ended.reason, ended.exit_code) == ("OOMKilled", 137)
