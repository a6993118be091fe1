"""Ask every source at once and put the answers on one page, within a few seconds whatever happens.

A source that fails or does not answer becomes a :class:`Problem` that says what to do; the others are shown as if
nothing had happened. Nothing here knows Airflow.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock

from airflow_mlops.core.errors import MlopsError, redact
from airflow_mlops.ui.page import EndpointCard, ModelCard, Overview, Problem

log = logging.getLogger(__name__)

Card = ModelCard | EndpointCard

LIMIT = 100
"""How many models and how many endpoints are shown at most."""

SECONDS = 6.0
"""How long the page waits for its sources."""

_POOL = ThreadPoolExecutor(max_workers=16, thread_name_prefix="mlops-ui")
_LOCK = Lock()
_RUNNING: dict[tuple[str, str, str], Future[Sequence[Card]]] = {}


@dataclass(frozen=True)
class Source:
    """Something that knows models or endpoints.

    :param kind: ``models`` or ``endpoints``
    :param name: what a person calls it, for example ``MLflow``
    :param conn_id: the Airflow connection it is reached through
    :param read: asks for at most the given number of cards
    """

    kind: str
    name: str
    conn_id: str
    read: Callable[[int], Sequence[Card]]


def overview(sources: Iterable[Source], *, seconds: float = SECONDS, limit: int = LIMIT) -> Overview:
    """Return the page. It takes at most *seconds*, and never raises because of a source."""
    asked = {source: _ask(source, limit) for source in sources}
    finished = wait(asked.values(), timeout=seconds).done
    errors = {s: answer.exception() if answer in finished else TimeoutError() for s, answer in asked.items()}
    cards = [card for source, error in errors.items() if error is None for card in asked[source].result()]
    models = [card for card in cards if isinstance(card, ModelCard)]
    endpoints = [card for card in cards if isinstance(card, EndpointCard)]
    return Overview(
        as_of=datetime.now(UTC),
        models=tuple(models[:limit]),
        endpoints=tuple(endpoints[:limit]),
        problems=tuple(_problem(source, error, seconds) for source, error in errors.items() if error),
        truncated=max(len(models), len(endpoints)) >= limit,
        limit=limit,
    )


def _ask(source: Source, limit: int) -> Future[Sequence[Card]]:
    """Start reading, or join who reads already: a platform that hangs holds one thread, however many look at it."""
    with _LOCK:
        key = (source.kind, source.name, source.conn_id)
        running = _RUNNING.get(key)
        if running is None or running.done():
            running = _RUNNING[key] = _POOL.submit(source.read, limit)
        return running


def _problem(source: Source, error: BaseException, seconds: float) -> Problem:
    return Problem(source.kind, source.name, source.conn_id, _explain(source, error, seconds))


def _explain(source: Source, error: BaseException, seconds: float) -> str:
    if isinstance(error, MlopsError):
        return redact(str(error))  # it says what to do next
    if isinstance(error, TimeoutError):
        return f"No answer within {seconds:g} s. Check that it runs, and connection {source.conn_id!r}."
    # The text of a foreign error may hold anything, a password included: it goes to the log only.
    log.error("The MLOps page could not read %s through %r", source.name, source.conn_id, exc_info=error)
    return f"It failed with {type(error).__name__}. The log of the API server has the details."
