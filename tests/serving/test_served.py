"""One revision's own life: its worker is never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from airflow_mlops.core.digests import folder_digest
from airflow_mlops.serving.served import Limits, Served
from airflow_mlops.serving.state import RevisionRecord
from airflow_mlops.testing.deployment_target import write_model


def test_a_full_disk_leaves_no_second_worker(tmp_path: Path) -> None:
    """When its state cannot be written at the moment it is ready, a revision goes on with one process, then none."""
    model = tmp_path / "model"
    write_model(model, "return list(table['a'])")
    home = tmp_path / "home"
    first: list[int | None] = []

    async def live() -> tuple[int, str]:
        record = RevisionRecord("v1", "m", "1", folder_digest(model), str(model), "home")

        def changed(_: RevisionRecord) -> None:
            if not first:
                first.append(served.pid)
                raise OSError(28, "No space left on device")

        served = Served(record, home, tmp_path / "log", Limits(load=60, wait=1), changed)
        served.start()
        async with asyncio.timeout(60):
            while not first or served.state != "ready" or served.pid in (None, *first):  # noqa: ASYNC110 - any change
                await asyncio.sleep(0.05)
        counted, state = len(workers_of(home)), served.state
        await served.stop()
        return counted, state

    assert asyncio.run(live()) == (1, "ready")
    assert workers_of(home) == []


def workers_of(home: Path) -> list[str]:
    """Return the ids of the processes that were started with this folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if os.fsencode(home) in file.read_bytes().split(b"\0"):
                found.append(file.parent.name)
    return found
