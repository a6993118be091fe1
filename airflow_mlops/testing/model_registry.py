"""The promises of every model registry, as a suite that a test subclasses.

Give it two fixtures: ``registry``, a registry that may hold other models,
and ``log_model``, a function that keeps a new model with the given bytes in a new run and returns its address and the
id of the run.
"""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from airflow_mlops.core.errors import ConflictError, NotFoundError
from airflow_mlops.core.refs import ModelVersion
from airflow_mlops.registry.contract import CHAMPION, PREVIOUS, ModelRegistry

LogModel = Callable[[bytes], tuple[str, str]]


class ModelRegistryContract:
    """Subclass it as ``TestMine(ModelRegistryContract)`` in a module that has the two fixtures."""

    @pytest.fixture
    def name(self) -> str:
        """Give a name that no other test uses."""
        return f"wine-{uuid.uuid4().hex[:8]}"

    @pytest.fixture
    def three(self, registry: ModelRegistry, log_model: LogModel, name: str) -> list[ModelVersion]:
        """Give three registered versions of one model, oldest first."""
        versions = []
        for content in (b"one", b"two", b"three"):
            uri, run_id = log_model(content)
            versions.append(registry.register(name, uri, run_id=run_id, tags={"content": content.decode()}))
        return versions

    def test_it_is_a_model_registry(self, registry: ModelRegistry) -> None:
        """It has every verb of the contract."""
        assert isinstance(registry, ModelRegistry)

    def test_registering_keeps_digest_run_and_tags(self, three: list[ModelVersion]) -> None:
        """A registered version names its run, its tags and the digest of its files; other files, other digest."""
        assert len({version.digest for version in three}) == 3
        assert all(version.digest.startswith("sha256:") and version.run_id for version in three)
        assert [version.tags["content"] for version in three] == ["one", "two", "three"]

    def test_registering_twice_is_registering_once(
        self, registry: ModelRegistry, log_model: LogModel, name: str
    ) -> None:
        """A retry that registers the same model of the same run gets the version of the first try."""
        uri, run_id = log_model(b"once")
        first = registry.register(name, uri, run_id=run_id, tags={})
        assert registry.register(name, uri, run_id=run_id, tags={}) == first
        assert len(registry.history(name)) == 1

    def test_registering_at_once_is_registering_once(
        self, registry: ModelRegistry, log_model: LogModel, name: str
    ) -> None:
        """A zombie task and its successor that register at the same moment share one version."""
        uri, run_id = log_model(b"race")
        outcomes = together(4, lambda _: registry.register(name, uri, run_id=run_id, tags={}).version)
        assert len(set(outcomes)) == 1, outcomes
        assert len(registry.history(name)) == 1

    def test_the_first_promotion_expects_none(
        self, registry: ModelRegistry, three: list[ModelVersion], name: str
    ) -> None:
        """Without a champion the expected version is None, and there is nothing to go back to."""
        champion = registry.promote(name, expected=None, to=three[0].version)
        assert champion.aliases == (CHAMPION,)
        assert registry.resolve(name, CHAMPION).version == three[0].version
        with pytest.raises(NotFoundError, match=PREVIOUS):
            registry.rollback(name)

    def test_a_promotion_prepares_the_way_back(
        self, registry: ModelRegistry, three: list[ModelVersion], name: str
    ) -> None:
        """After a promotion ``previous`` is the old champion, and a rollback leads there, once or twice."""
        old, new = three[0].version, three[1].version
        registry.promote(name, expected=None, to=old)
        registry.promote(name, expected=old, to=new)
        assert registry.resolve(name, PREVIOUS).version == old
        assert registry.rollback(name).version == old
        assert registry.rollback(name).version == old
        assert registry.resolve(name, CHAMPION).version == old

    def test_a_rollback_takes_back_the_promotion_it_is_told_and_no_other(
        self, registry: ModelRegistry, three: list[ModelVersion], name: str
    ) -> None:
        """Somebody else's champion stays; the expected one goes, and taking it back once more changes nothing."""
        first, second, third = (model.version for model in three)
        registry.promote(name, expected=None, to=first)
        registry.promote(name, expected=first, to=second)
        registry.promote(name, expected=second, to=third)
        with pytest.raises(ConflictError, match=third):
            registry.rollback(name, expected=second)
        assert registry.resolve(name, CHAMPION).version == third
        for _ in range(2):
            assert registry.rollback(name, expected=third).version == second

    def test_promoting_the_champion_changes_nothing(
        self, registry: ModelRegistry, three: list[ModelVersion], name: str
    ) -> None:
        """A retry of a promotion that went through succeeds and keeps ``previous``."""
        old, new = three[0].version, three[1].version
        registry.promote(name, expected=None, to=old)
        for _ in range(2):
            registry.promote(name, expected=old, to=new)
        assert registry.resolve(name, PREVIOUS).version == old

    def test_a_promotion_over_another_champion_is_refused(
        self, registry: ModelRegistry, three: list[ModelVersion], name: str
    ) -> None:
        """Evidence against yesterday's champion promotes nothing today."""
        registry.promote(name, expected=None, to=three[0].version)
        for expected in (None, three[1].version):
            with pytest.raises(ConflictError, match="somebody else"):
                registry.promote(name, expected=expected, to=three[2].version)
        assert registry.resolve(name, CHAMPION).version == three[0].version

    def test_of_two_promotions_at_once_one_wins(
        self, registry: ModelRegistry, three: list[ModelVersion], name: str
    ) -> None:
        """Two tasks that promote over the same champion at the same moment cannot both succeed."""
        registry.promote(name, expected=None, to=three[0].version)

        def promote(index: int) -> str:
            try:
                return registry.promote(name, expected=three[0].version, to=three[1 + index].version).version
            except ConflictError:
                return "refused"

        outcomes = Counter(together(2, promote))
        assert outcomes.pop("refused") == 1
        assert list(outcomes) == [registry.resolve(name, CHAMPION).version]

    def test_what_is_not_there_is_named(self, registry: ModelRegistry, three: list[ModelVersion], name: str) -> None:
        """A misspelt alias or model is answered with the one that was meant."""
        registry.promote(name, expected=None, to=three[0].version)
        with pytest.raises(NotFoundError, match="did you mean 'champion'"):
            registry.resolve(name, "champoin")
        with pytest.raises(NotFoundError, match=f"did you mean '{name}'"):
            registry.resolve(f"{name}s", CHAMPION)
        with pytest.raises(NotFoundError, match="99"):
            registry.resolve(name, "99")
        with pytest.raises(NotFoundError, match="99"):
            registry.promote(name, expected=three[0].version, to="99")

    def test_history_is_newest_first(self, registry: ModelRegistry, three: list[ModelVersion], name: str) -> None:
        """History shows every version with its aliases, the newest first."""
        registry.promote(name, expected=None, to=three[1].version)
        history = registry.history(name)
        assert [version.version for version in history] == [version.version for version in reversed(three)]
        assert [version.aliases for version in history] == [(), (CHAMPION,), ()]


def together(count: int, act: Callable[[int], Any]) -> list[Any]:
    """Call ``act(0)`` to ``act(count - 1)`` in threads that start at the same moment, and return what they gave."""
    barrier = threading.Barrier(count)
    outcomes: list[Any] = []
    errors: list[Exception] = []

    def run(index: int) -> None:
        barrier.wait(30)
        try:
            outcomes.append(act(index))
        except Exception as error:  # noqa: BLE001 - raised again below, in the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]
    return outcomes
