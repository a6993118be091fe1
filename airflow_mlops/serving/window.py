"""What the revisions of one endpoint did lately: a bounded memory of answers, and figures over any window of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

MAX_ANSWERS = 100_000
MAX_AGE_SECONDS = 7200.0
SAMPLE = 5_000


class Answer(NamedTuple):
    """One answered request: arrival in seconds since 1970, who answered, HTTP status, how long, numeric predictions."""

    time: float
    revision: str
    status: int
    latency_ms: float
    predictions: tuple[float, ...] = ()


class Recent:
    """The last answers of one endpoint: at most 100,000, at most two hours old. Older ones are forgotten."""

    def __init__(self, answers: Iterable[Answer] = ()) -> None:
        self._answers: deque[Answer] = deque(answers, maxlen=MAX_ANSWERS)

    def add(self, answer: Answer) -> None:
        """Remember *answer*."""
        while self._answers and self._answers[0].time < answer.time - MAX_AGE_SECONDS:
            self._answers.popleft()
        self._answers.append(answer)

    def between(self, since: float, until: float) -> list[Answer]:
        """Return the answers to requests that arrived in ``since <= time <= until``."""
        return [answer for answer in list(self._answers) if since <= answer.time <= until]


def figures(answers: Iterable[Answer]) -> dict[str, dict[str, Any]]:
    """Return the window metrics of each revision, as the API describes them.

    Latencies are those of good answers (status 200): a refusal is quick and would make a revision look fast.
    Predictions are an even sample of at most 5,000 in the order of arrival, ``latencies_ms`` one in rising order.
    """
    by_revision: dict[str, list[Answer]] = {}
    for answer in answers:
        by_revision.setdefault(answer.revision, []).append(answer)
    return {revision: _figures(revision, found) for revision, found in sorted(by_revision.items())}


def _figures(revision: str, answers: Sequence[Answer]) -> dict[str, Any]:
    latencies = sorted(answer.latency_ms for answer in answers if answer.status == 200)
    predictions = [value for answer in answers for value in answer.predictions]
    return {
        "revision": revision,
        "requests": len(answers),
        "errors": sum(answer.status >= 500 for answer in answers),
        "latency_p50_ms": quantile(latencies, 0.5),
        "latency_p99_ms": quantile(latencies, 0.99),
        "predictions": even_sample(predictions, SAMPLE),
        "latencies_ms": even_sample(latencies, SAMPLE),
    }


def quantile(ordered: Sequence[float], q: float) -> float | None:
    """Return the q-quantile of sorted values, linear between neighbours; ``None`` of nothing."""
    if not ordered:
        return None
    position = q * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def even_sample(values: Sequence[float], size: int) -> list[float]:
    """Return at most *size* of *values*, evenly spaced and in order."""
    if len(values) <= size:
        return list(values)
    return [values[index * len(values) // size] for index in range(size)]
