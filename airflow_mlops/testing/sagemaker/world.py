"""What all parts of the fake share: where things are kept, how fast time goes, and who may get in."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field
from pathlib import Path

from airflow_mlops.testing.sagemaker.storage import Storage
from airflow_mlops.testing.sagemaker.streams import Streams

ACCOUNT = "123456789012"


@dataclass
class Pace:
    """How long things take, in seconds.

    :param start: from a job's creation to its program's start
    :param grace: from SIGTERM to SIGKILL when a job is stopped; 120 on the real service
    :param upload: from the end of a program to the end of its job
    :param spot_wait: from an interruption to the next machine
    :param role: from the moment a role is assumed until its key is no longer good
    """

    start: float = 0.05
    grace: float = 5.0
    upload: float = 0.0
    spot_wait: float = 0.2
    role: float = 3600.0


@dataclass
class World:
    """One account.

    :param vault: secrets of Secrets Manager, by name
    :param keys: access key -> secret key of everybody who may ask
    :param has_spot: whether there are spot machines at all
    """

    folder: Path
    storage: Storage
    pace: Pace
    vault: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    has_spot: bool = True
    address: str = ""
    streams: dict[str, Streams] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def log_of(self, region: str) -> Streams:
        """Return the log groups of a region."""
        with self.lock:
            return self.streams.setdefault(region, Streams())

    def new_key(self) -> tuple[str, str]:
        """Return an access key and its secret, which are known from now on."""
        key, secret = f"AKIA{secrets.token_hex(8).upper()}", secrets.token_urlsafe(30)
        self.keys[key] = secret
        return key, secret
