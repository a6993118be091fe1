"""How often a request is tried, and how long to wait in between: the same for every platform."""

from __future__ import annotations

import random
from collections.abc import Mapping

ATTEMPTS = 4
FIRST_PAUSE = 0.2


def pause_after(attempt: int, headers: Mapping[str, str] | None = None, *, longest: float = 0.0) -> float:
    """Return the seconds to wait after an attempt, the first being 1: they double, with jitter that spreads load.

    :param headers: of the answer; ``Retry-After`` makes the pause longer
    :param longest: seconds of ``Retry-After`` that are waited at most
    """
    pause: float = FIRST_PAUSE * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)  # noqa: S311 - spreads load
    told = str((headers or {}).get("Retry-After", ""))
    return max(pause, min(float(told), longest)) if told.isdigit() else pause
