"""The house habits that a reader can rely on, checked on the source itself."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = sorted((ROOT / "airflow_mlops").rglob("*.py"))
SURFACE = [path for path in PACKAGE if path.parent.name in {"decorators", "operators", "hooks", "triggers", "links"}]
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))

MAX_FILE_LINES = 270
MAX_SURFACE_FUNCTION = 40
MAX_MEDIAN_FUNCTION = 10


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function's body; signature and docstring explain and do not count."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def name(path: Path) -> str:
    """Return the path within the repository."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PACKAGE, ids=name)
def test_a_file_fits_in_one_reading(path: Path) -> None:
    """No file of the package is long; one that outgrows this is split by noun."""
    assert len(path.read_text().splitlines()) <= MAX_FILE_LINES


def test_functions_are_short() -> None:
    """Half of all functions have a body of at most ten lines."""
    assert statistics.median(body_lines(f) for path in PACKAGE for f in functions(path)) <= MAX_MEDIAN_FUNCTION


@pytest.mark.parametrize("path", SURFACE, ids=name)
def test_the_surface_is_thin(path: Path) -> None:
    """No function of an operator, hook, trigger or link is long, except a signature-bound constructor."""
    long = [f.name for f in functions(path) if f.name != "__init__" and body_lines(f) > MAX_SURFACE_FUNCTION]
    assert long == []


@pytest.mark.parametrize("path", TESTS, ids=name)
def test_every_test_states_its_promise(path: Path) -> None:
    """Each test has a docstring that says what is promised."""
    silent = [f.name for f in functions(path) if f.name.startswith("test_") and not ast.get_docstring(f)]
    assert silent == []


def test_nothing_is_named_after_nothing() -> None:
    """No module is called utils, helper or manager: a name says what is inside."""
    assert [name(path) for path in PACKAGE if re.search(r"utils|helper|manager", path.stem)] == []


def test_locks_record_no_address() -> None:
    """The locked requirements hold names, versions and hashes, and no address of a registry."""
    for lock in (ROOT / "requirements").glob("*.txt"):
        assert "://" not in lock.read_text(), lock.name


def test_every_lock_entry_has_a_hash() -> None:
    """No locked requirement can be replaced without notice."""
    for lock in (ROOT / "requirements").glob("*.txt"):
        pinned = re.findall(r"^[a-zA-Z0-9].*==.*$", lock.read_text(), re.MULTILINE)
        assert pinned
        assert [line for line in pinned if not line.endswith("\\")] == []


def test_no_file_of_a_tool_that_records_addresses() -> None:
    """The repository tracks no lock file that records where packages were downloaded from."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not {"uv.lock", "poetry.lock", "package-lock.json"} & {Path(file).name for file in tracked}
