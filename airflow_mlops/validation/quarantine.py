"""Put bad rows aside with the reason, so that the rest can go on and a person can look at what was taken away.

The input is never touched. Both outputs appear complete, under fixed names, and no row is lost or doubled.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from airflow_mlops.core.errors import IntegrityError
from airflow_mlops.core.extras import extra
from airflow_mlops.validation.reading import EXTRA, data_files, read_frame

PASSED, QUARANTINE = "passed.parquet", "quarantine.parquet"


def split(data: Path, bad: Mapping[int, str], to: Path) -> tuple[Path, Path]:
    """Write the rows of *data* to two files in the folder *to* and return where the good and the bad ones are.

    :param bad: row number from 0 in file order -> reason
    :returns: ``passed.parquet`` with the input's columns, and ``quarantine.parquet`` with a column ``reason`` more
        (``quarantine_reason`` when the data has a column of that name)
    :raises IntegrityError: a row number is not in the data; nothing is written
    """
    to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".split-", dir=to) as folder:
        good, away = Path(folder, PASSED), Path(folder, QUARANTINE)
        seen = _write(data, bad, good, away)
        if any(row >= seen or row < 0 for row in bad):
            raise IntegrityError(f"{str(data)!r} has {seen} rows and changed since it was checked. Check it again.")
        os.replace(away, to / QUARANTINE)
        os.replace(good, to / PASSED)
    return to / PASSED, to / QUARANTINE


def _write(data: Path, bad: Mapping[int, str], good: Path, away: Path) -> int:
    """Write both files batch by batch and return the number of rows."""
    with extra(EXTRA):
        import pyarrow as pa
        import pyarrow.parquet as pq
    start = 0
    with ExitStack() as stack:
        writers: dict[Path, Any] = {}
        for batch in _batches(data):
            rows = range(start, start + batch.num_rows)
            reasons = [bad.get(row) for row in rows]
            mask = pa.array([reason is not None for reason in reasons], pa.bool_())
            label = "quarantine_reason" if "reason" in batch.column_names else "reason"
            marked = batch.append_column(label, pa.array(reasons, pa.string()))
            for path, part in ((good, batch.filter(pa.compute.invert(mask))), (away, marked.filter(mask))):
                if path not in writers:
                    writers[path] = stack.enter_context(pq.ParquetWriter(path, part.schema))
                writers[path].write_table(part.cast(writers[path].schema))
            start = rows.stop
    return start


def _batches(data: Path) -> Iterator[Any]:
    """Yield the rows as tables in file order; at least one, which may be empty."""
    import pyarrow as pa
    import pyarrow.compute
    import pyarrow.parquet as pq

    files = data_files(data)
    if files[0].suffix == ".csv":
        yield pa.Table.from_pandas(read_frame(files), preserve_index=False)
        return
    yield pq.read_schema(files[0]).empty_table()
    for path in files:
        for batch in pq.ParquetFile(path).iter_batches():
            yield pa.Table.from_batches([batch])
