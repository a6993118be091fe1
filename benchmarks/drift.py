"""Drift on generated data: ours beside a plain scan by pyarrow and a loop over scipy. One JSON line a figure.

``ROWS=1000000 python benchmarks/drift.py``. Each side, and the making of the data, is a process of its own: imports
count, and no side inherits the memory peak of another. Reference and current data have 28 columns: 22 of numbers, 2 of
booleans and 4 of text.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROWS = int(os.environ.get("ROWS", "1000000"))
COLUMNS = 28


def generate(folder: Path) -> None:
    """Write ``reference.parquet`` and ``current.parquet``."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    for seed, name in enumerate(("reference", "current")):
        writer = None
        for start in range(0, ROWS, 1_000_000):
            rng, n = np.random.default_rng([seed, start]), min(1_000_000, ROWS - start)
            columns = {f"normal{i}": rng.normal(i, 1 + i, n) for i in range(10)}
            columns |= {f"exponential{i}": rng.exponential(10, n) for i in range(4)}
            columns |= {f"price{i}": np.round(rng.lognormal(2, 1, n), 2) for i in range(2)}
            columns |= {f"integer{i}": rng.integers(0, 10 ** (i + 1), n) for i in range(6)}
            columns |= {f"flag{i}": rng.random(n) < 0.3 for i in range(2)}
            columns |= {f"text{i}": np.char.add("k", rng.integers(0, 10 ** (i + 1), n).astype(str)) for i in range(4)}
            table = pa.table({key: pa.array(values) for key, values in columns.items()})
            writer = writer or pq.ParquetWriter(folder / f"{name}.parquet", table.schema)
            writer.write_table(table)
        if writer:
            writer.close()


def ours(folder: Path) -> None:
    """Profile both files and compare them."""
    from airflow_mlops.drift.detect import detect
    from airflow_mlops.drift.policy import DriftPolicy
    from airflow_mlops.drift.reference import profile_data

    reference, current = (profile_data(str(folder / f"{name}.parquet")) for name in ("reference", "current"))
    assert detect(reference, current, DriftPolicy()).compared == COLUMNS
    assert "pandas" not in sys.modules
    (folder / "profile.json").write_text(reference.to_json())


def stored(folder: Path) -> None:
    """Profile the current file and compare it with the stored profile of the reference."""
    from airflow_mlops.drift.detect import detect
    from airflow_mlops.drift.policy import DriftPolicy
    from airflow_mlops.drift.profile import DriftProfile
    from airflow_mlops.drift.reference import profile_data

    reference = DriftProfile.read(folder / "profile.json")
    assert detect(reference, profile_data(str(folder / "current.parquet")), DriftPolicy()).compared == COLUMNS


def scan(folder: Path) -> None:
    """Read every column of both files once and add nothing up."""
    import pyarrow.parquet as pq

    for name in ("reference", "current"):
        file = pq.ParquetFile(folder / f"{name}.parquet")
        for batch in file.iter_batches(batch_size=65_536, use_threads=False):
            assert batch.num_columns == COLUMNS


def scipy(folder: Path) -> None:
    """Compute Kolmogorov-Smirnov and Wasserstein of numbers, chi-square of categories: the loop people write."""
    import numpy as np
    import pyarrow.parquet as pq
    from scipy import stats

    a, b = (pq.read_table(folder / f"{name}.parquet") for name in ("reference", "current"))
    for name in a.column_names:
        x, y = a[name].to_numpy(), b[name].to_numpy()
        if x.dtype.kind in "if":
            assert stats.ks_2samp(x, y, method="asymp").statistic < 0.05
            stats.wasserstein_distance(x, y)
        else:
            levels, codes = np.unique(np.concatenate([x, y]).astype(str), return_inverse=True)
            rows = [np.bincount(part, minlength=levels.size) for part in (codes[: x.size], codes[x.size :])]
            stats.chi2_contingency(np.array(rows))


def measured(side: str, folder: Path) -> tuple[float, float]:
    """Return CPU seconds and MiB at the peak of one side in a process of its own."""
    done = subprocess.run([sys.executable, __file__, side, str(folder)], capture_output=True, text=True, check=True)
    cpu, peak = json.loads(done.stdout.splitlines()[-1])
    return cpu, peak


def figure(name: str, mine: float, theirs: float, goal: float, unit: str = "CPU s") -> None:
    """Print one figure; the goal is for ours over theirs."""
    ratio = mine / theirs
    print(json.dumps({"name": name, "ours": mine, "theirs": theirs, "ratio": ratio, "goal": goal, "unit": unit}))


def main() -> None:
    """Generate the data, run every side and print the figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured("generate", folder)
        found = {side: measured(side, folder) for side in ("ours", "stored", "scan", "scipy")}
    figure(f"drift of {ROWS} x {COLUMNS} beside a scipy loop", found["ours"][0], found["scipy"][0], 0.1)
    figure(f"drift of {ROWS} x {COLUMNS} beside a plain scan", found["ours"][0], found["scan"][0], 1.5)
    figure(f"drift of {ROWS} x {COLUMNS} with a stored profile", found["stored"][0], found["ours"][0], 0.7)
    figure(f"peak memory of drift of {ROWS} x {COLUMNS}", found["ours"][1], found["scipy"][1], 0.5, "MiB")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        sides = {"generate": generate, "ours": ours, "stored": stored, "scan": scan, "scipy": scipy}
        sides[sys.argv[1]](Path(sys.argv[2]))
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
