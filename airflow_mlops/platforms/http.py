"""What our REST clients do the same: trust, and trying again what may be tried again.

What an answer means is the platform's own. Nothing here may decide that a request can be sent twice.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable

import httpx

from airflow_mlops.core.errors import MlopsError, PlatformUnavailableError
from airflow_mlops.platforms.pauses import ATTEMPTS, pause_after


def trusted(verify: object) -> bool | ssl.SSLContext:
    """Return what httpx takes for the extra ``verify`` of a connection: a truth value, or the path of a CA bundle."""
    if isinstance(verify, str) and verify.lower() not in ("true", "false"):
        return ssl.create_default_context(cafile=verify)
    return str(verify).lower() != "false"


def persist(
    send: Callable[[], httpx.Response],
    refusal: Callable[[httpx.Response], MlopsError],
    unreachable: Callable[[httpx.TransportError], MlopsError],
    *,
    repeat: bool,
    longest_pause: float,
) -> httpx.Response:
    """Return a successful answer, after at most four attempts.

    A throttled request (HTTP 429) had no effect and is sent again in any case, as is one that never got a connection.

    :param send: sends the request once
    :param refusal: the error that an answer means
    :param unreachable: the error that no answer means
    :param repeat: whether sending it twice does no more than sending it once
    :param longest_pause: seconds of ``Retry-After`` that are waited at most
    """
    for attempt in range(1, ATTEMPTS + 1):
        headers = None
        try:
            answer = send()
        except httpx.TransportError as error:
            if attempt == ATTEMPTS or not (repeat or isinstance(error, httpx.ConnectError)):
                raise unreachable(error) from error
        else:
            if answer.is_success:
                return answer
            refused, throttled = refusal(answer), answer.status_code == 429
            may_pass = isinstance(refused, PlatformUnavailableError) and (repeat or throttled)
            if attempt == ATTEMPTS or not may_pass:
                raise refused
            headers = answer.headers
        time.sleep(pause_after(attempt, headers, longest=longest_pause))
    raise AssertionError("the last attempt returns or raises")
