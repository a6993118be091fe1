"""The test runner itself: what surface tests rely on."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_mlops.core.errors import InvalidSpecError, PlatformUnavailableError
from airflow_mlops.operators.base import MlopsOperator
from airflow_mlops.testing.task_runner import DagRunMemory, run_task


class Ping(BaseTrigger):
    """Fires at once."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.Ping", {"word": self.word}

    async def run(self) -> Any:
        yield TriggerEvent({"said": self.word})


class Echo(MlopsOperator):
    """Does what its argument says."""

    template_fields = ("word",)

    def __init__(self, *, word: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.word = word

    def execute(self, context: Any) -> Any:
        self.log.info("the word is %s", self.word)
        if self.word == "invalid":
            raise InvalidSpecError("never again")
        if self.word == "unavailable":
            raise PlatformUnavailableError("try later")
        if self.word == "defer":
            self.defer(trigger=Ping("pong"), method_name="resume")
        if self.word == "remember":
            store = context["task_state_store"]
            store.set("count", (store.get("count") or 0) + 1)
        for asset in self.outlets:
            context["outlet_events"][asset].extra = {"word": self.word}
        return {"word": self.word}

    def resume(self, context: Any, event: dict[str, Any]) -> Any:
        return event


def test_templates_are_rendered_and_the_result_is_an_xcom() -> None:
    """A templated argument is rendered with the run's values, and what execute returns is found under return_value."""
    memory = DagRunMemory(xcoms={("before", "return_value"): {"rev": "v7"}})
    run = run_task(Echo(task_id="echo", word="{{ ti.xcom_pull('before')['rev'] }}"), memory=memory)
    assert (run.state, run.result) == ("success", {"word": "v7"})
    assert "the word is v7" in run.log


def test_a_deferred_task_is_followed_to_its_end() -> None:
    """The trigger's first event reaches the method the task named."""
    run = run_task(Echo(task_id="echo", word="defer"))
    assert (run.state, run.result, run.deferrals) == ("success", {"said": "pong"}, 1)


def test_a_deferred_task_can_be_held() -> None:
    """Without following, the trigger is handed over as the triggerer would build it, and the task can be resumed."""
    task = Echo(task_id="echo", word="defer")
    memory = DagRunMemory()
    held = run_task(task, memory=memory, follow=False)
    assert (held.state, held.trigger.word) == ("deferred", "pong")
    assert run_task(task, memory=memory, resume=held, event={"said": "late"}).result == {"said": "late"}


def test_errors_that_must_fail_again_are_not_retried() -> None:
    """With retries left, a wrong request fails at once and an absent platform is tried again."""
    assert run_task(Echo(task_id="echo", word="invalid", retries=3)).state == "failed"
    assert run_task(Echo(task_id="echo", word="unavailable", retries=3)).state == "up_for_retry"


def test_the_state_store_survives_a_retry() -> None:
    """What one try wrote into the state store is there for the next one."""
    memory = DagRunMemory()
    for try_number in (1, 2):
        run = run_task(Echo(task_id="echo", word="remember"), memory=memory, try_number=try_number)
    assert run.state_store == {"count": 2}


def test_asset_events_are_reported_with_their_extra() -> None:
    """An outlet's event carries the extra the task set."""
    run = run_task(Echo(task_id="echo", word="x", outlets=[Asset("mlops://thing")]))
    assert [event["extra"] for event in run.asset_events] == [{"word": "x"}]


def test_a_plain_operator_keeps_airflows_own_policy() -> None:
    """Only our operators bring the shared retry policy."""
    assert BaseOperator(task_id="plain").retry_policy is None
