"""A bounded load on an endpoint while something happens to it, with every answer counted."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

Row = Callable[[random.Random], dict[str, float]]


def skewed(rng: random.Random) -> dict[str, float]:
    """Return one row with the column ``a``, between 0 and 1 and mostly low."""
    return {"a": rng.betavariate(2, 6)}


@contextmanager
def live_requests(
    url: str, *, row: Row = skewed, workers: int = 2, pause: float = 0.01, token: str = ""
) -> Iterator[list[int]]:
    """Send single rows to an invocations address until the block ends; give the growing list of status codes.

    A request that got no answer at all counts as 0.

    :param workers: requests under way at the same time
    :param pause: seconds each worker waits between two requests
    """
    codes: list[int] = []
    stop = threading.Event()
    headers = {"Authorization": f"Bearer {token}"} if token else {}

    def send(seed: int) -> None:
        rng = random.Random(seed)  # noqa: S311 - test traffic, not a secret
        with httpx.Client(timeout=30, trust_env=False, headers=headers) as client:
            while not stop.wait(pause):
                codes.append(_status(client, url, row(rng)))

    threads = [threading.Thread(target=send, args=(seed,)) for seed in range(workers)]
    for thread in threads:
        thread.start()
    try:
        yield codes
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _status(client: httpx.Client, url: str, row: dict[str, Any]) -> int:
    try:
        return client.post(url, json={"dataframe_records": [row]}).status_code
    except httpx.TransportError:
        return 0
