"""A Python function as a job's command: run as a job would run it, by every Python that this machine has."""

from __future__ import annotations

import ast
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.training.contract import TrainingSpec
from airflow_mlops.training.function import LIMIT, PARAMETER_TEXT, RUNNER, FunctionSource, function_call
from airflow_mlops.training.launch import command_line

if TYPE_CHECKING:
    from decimal import Decimal

FACTOR = 3


def works(python: str) -> bool:
    """Whether this interpreter is there and not only a name."""
    return bool(shutil.which(python)) and subprocess.call([python, "-c", ""], stderr=subprocess.DEVNULL) == 0


PYTHONS = [sys.executable, *(name for name in (f"python3.{minor}" for minor in range(9, 15)) if works(name))]


def run(
    function: Callable[..., Any],
    *args: Any,
    python: str = sys.executable,
    env: dict[str, str] | None = None,
    **kwargs: Any,
) -> tuple[subprocess.CompletedProcess[str], Any]:
    """Run the function as a job and return how its process ended, and what it reported."""
    call = function_call(FunctionSource.of(function), function, args, kwargs, python=python)
    spec = TrainingSpec(call.command, call.args, parameters=call.parameters)
    output = Path(os.environ["OUTPUT"])
    output.unlink(missing_ok=True)
    variables = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "MLOPS_OUTPUT": str(output), **(env or {})}
    done = subprocess.run(command_line(spec), check=False, env=variables, cwd="/", capture_output=True, text=True)
    return done, json.loads(output.read_text()) if output.exists() else None


@pytest.fixture(autouse=True)
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test an output file of its own."""
    monkeypatch.setenv("OUTPUT", str(tmp_path / "output.json"))


def fit(rate: float, layers: list[int], name: str = "net", *, note: str | None = None, amount: Decimal | None = None):
    """Return what came through."""
    import sys

    sys.stdout.write(f"{rate!r} {layers!r} {name!r} {note!r} {amount!r} {'airflow_mlops' in sys.modules}\n")
    return {"rate": rate, "layers": len(layers)}


@pytest.mark.parametrize("python", PYTHONS)
def test_it_runs_without_anything_of_ours(python: str) -> None:
    """Arguments keep their types, annotations may name what the image does not have, metrics are reported."""
    done, report = run(fit, 0.25, layers=[8, 4], note="two\nlines", python=python)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "0.25 [8, 4] 'net' 'two\\nlines' None False\n"
    assert report == {"metrics": {"rate": 0.25, "layers": 2}}


def test_the_runner_is_python_3_9() -> None:
    """What is sent can be parsed by Python 3.9, and no word of it is about a package of ours."""
    ast.parse(RUNNER, feature_version=(3, 9))
    assert "import airflow" not in RUNNER


def test_scalars_are_parameters_and_are_passed_once() -> None:
    """Numbers, truth values, None and lines of text are parameters, also as defaults; all else is JSON."""
    call = function_call(FunctionSource.of(fit), fit, [0.25], {"layers": [8], "note": "two\nlines"})
    assert call.parameters == {"rate": 0.25, "name": "net", "amount": None}
    assert json.loads(call.args[1])["arguments"] == {"layers": [8], "note": "two\nlines"}
    words = command_line(TrainingSpec(call.command, call.args, parameters=call.parameters))
    assert words[-6:] == ["--rate", "0.25", "--name", "net", "--amount", "null"]


def echo(**given):
    """Report what came through."""
    return {"metrics": {}, "model_uri": repr(given), "run_id": "r"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b_1", "call", "text", "self"]), JSON))
def test_every_json_value_arrives_as_it_was_sent(given: dict[str, Any]) -> None:
    """Whatever JSON can say comes out as the same Python value, text that looks like a number or a flag as text."""
    done, report = run(echo, **given)
    assert done.returncode == 0, done.stderr
    assert ast.literal_eval(report["model_uri"]) == given


def test_text_that_looks_like_something_else_stays_text() -> None:
    """A version such as "1.10", the word "null" and a flag are text."""
    given = {"a": "1.10", "b": "null", "c": "--rate", "d": "$(HOME)"}
    assert ast.literal_eval(run(echo, **given)[1]["model_uri"]) == given


def broken(rate):
    """Fail two frames deep."""

    def inner():
        return 1 / rate

    try:
        return inner()
    except ZeroDivisionError as error:
        raise ValueError("the rate is zero") from error


def line_of(text: str) -> int:
    """Return the line of this file that is *text*."""
    return Path(__file__).read_text().splitlines().index(text) + 1


@pytest.mark.parametrize("python", PYTHONS)
def test_a_traceback_has_the_users_own_lines(python: str) -> None:
    """File name, line numbers and source are those of the user's file, causes included; no frame is of the runner."""
    done, report = run(broken, 0, python=python)
    assert (done.returncode, report) == (1, None)
    for text, name in [("        return 1 / rate", "inner"), ("        return inner()", "broken")]:
        assert f'File "test_function.py", line {line_of(text)}, in {name}\n' in done.stderr
        assert f"    {text.strip()}\n" in done.stderr
    assert done.stderr.endswith("ValueError: the rate is zero\n")
    assert "<string>" not in done.stderr


if True:  # as in the block of a DAG

    def indented():
        """Return text that is not indented as its function is."""
        text = """
at the margin
    indented"""
        return {"metrics": {"length": len(text)}, "model_uri": text}


def test_an_indented_function_keeps_its_text_and_lines() -> None:
    """A function in a block runs as it stands there: what its texts have at the margin is not moved."""
    done, report = run(indented)
    assert done.returncode == 0, done.stderr
    assert report["model_uri"] == indented()["model_uri"]
    assert FunctionSource.of(indented).line == line_of("    def indented():")


def returns(what):
    """Return one of the things a function may return, or must not."""

    class Number:
        def __float__(self):
            return 0.5

    return {
        "none": None,
        "empty": {},
        "number-like": {"auc": Number()},
        "report": {"model_uri": "models:/m-1"},
        "list": [1],
        "nan": {"auc": float("nan")},
        "text": {"auc": "high"},
        "metrics-list": {"metrics": [1]},
    }[what]


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("none", None),
        ("empty", {"metrics": {}}),
        ("number-like", {"metrics": {"auc": 0.5}}),
        ("report", {"model_uri": "models:/m-1", "metrics": {}}),
    ],
)
def test_what_may_be_returned(what: str, expected: Any) -> None:
    """None reports nothing, metrics may be of any type that is a number, and a report is taken as it is."""
    done, report = run(returns, what)
    assert (done.returncode, done.stderr, report) == (0, "", expected)


@pytest.mark.parametrize("what", ["list", "nan", "text", "metrics-list"])
def test_what_must_not_be_returned_fails_the_job(what: str) -> None:
    """Anything else ends the job with a message about the function, and nothing is reported."""
    done, report = run(returns, what)
    assert (done.returncode, report) == (1, None)
    assert done.stderr.startswith("returns() returned ")


def test_only_node_0_reports() -> None:
    """On several nodes the function runs on each, and one report is written."""
    assert run(fit, 1, [], env={"MLOPS_NODE_RANK": "1"})[1] is None
    assert run(fit, 1, [], env={"MLOPS_NODE_RANK": "0"})[1] == {"metrics": {"rate": 1, "layers": 0}}


def exits():
    """End in its own way."""
    import sys

    sys.exit(7)


def test_a_function_may_end_its_process() -> None:
    """The exit code of the function is the exit code of the job."""
    assert run(exits)[0].returncode == 7


def recursive(depth):
    """Use its own name, builtins and its own global."""
    global _depth  # noqa: PLW0603
    _depth = depth
    return {"depth": max(_depth, 0)} if depth == 3 else recursive(depth + 1)


def test_its_own_names_are_no_outer_names() -> None:
    """A function may call itself, use builtins and make globals."""
    assert run(recursive, 1)[1] == {"metrics": {"depth": 3}}


def uses_constant():
    """Read a constant of the file."""
    return FACTOR


def uses_import_in_class():
    """Read an import of the file."""

    class Inner:
        path = Path("/")

    return Inner


def default_of_file(rate=FACTOR):
    """Have a default that is a constant of the file."""
    return rate


def generator():
    """Yield."""
    yield 1


async def coroutine():
    """Be awaited."""
    return 1


def variadic(*args):
    """Take arguments without names."""
    return args


def around(rate):
    """Return a function that needs this one."""

    def closure():
        return rate

    return closure


@functools.cache
def cached():
    """Be cached."""
    return


@functools.wraps(fit)
def wrapped():
    """Stand for another function."""
    return


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda: None, "with 'def'"),
        (functools.partial(fit, 1), "with 'def'"),
        (len, "with 'def'"),
        (generator, "generator"),
        (coroutine, "asyncio.run"),
        (variadic, "a name"),
        (around(1), "'rate'"),
        (cached, "with 'def'"),
        (wrapped, "decorator"),
        (uses_constant, "'FACTOR'"),
        (uses_import_in_class, "'Path'"),
        (default_of_file, "'FACTOR'"),
    ],
)
def test_what_cannot_be_sent_is_refused(function: Any, said: str) -> None:
    """What would fail in the job for want of something that is not sent is refused with what to do."""
    with pytest.raises(InvalidSpecError, match=r"cannot be sent to a job: it .*\. [A-Z].*\.") as refused:
        FunctionSource.of(function)
    assert said in str(refused.value)


def test_a_decorator_that_would_be_lost_is_refused(tmp_path: Path) -> None:
    """Decorators of Airflow are left behind, all others are refused by name; a function without a file, too."""
    text = "def known(f): return f\n\n@task.train(backend='x')\n@known\ndef f():\n    return None\n"
    file = tmp_path / "dag.py"
    file.write_text(text)
    names: dict[str, Any] = {"task": type("task", (), {"train": staticmethod(lambda **_: lambda f: f)})}
    exec(compile(text, str(file), "exec"), names)
    with pytest.raises(InvalidSpecError, match="@known"):
        FunctionSource.of(names["f"])
    exec("def nowhere(): return None", names)
    with pytest.raises(InvalidSpecError, match="no source"):
        FunctionSource.of(names["nowhere"])


def test_too_much_is_refused(tmp_path: Path) -> None:
    """Source and arguments stay below what Linux takes in one argument; the message says how much it is."""
    file = tmp_path / "dag.py"
    file.write_text(f"def large():\n    return {'x' * LIMIT!r}\n")
    names: dict[str, Any] = {}
    exec(compile(file.read_text(), str(file), "exec"), names)
    with pytest.raises(InvalidSpecError, match=r"large\(\) is \d+ bytes"):
        FunctionSource.of(names["large"])
    with pytest.raises(InvalidSpecError, match="is called with is"):
        function_call(FunctionSource.of(echo), echo, [], {"rows": list(range(LIMIT))})
    assert run(echo, a="x" * (LIMIT - 500))[0].returncode == 0


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (Path("/"), "a holds"),
        ({"x": [0, {1, 2}]}, r"a\['x'\]\[1\] holds a set"),
        ({1: 2}, "key 1"),
        (float("nan"), "nan"),
        (b"x", "bytes"),
    ],
)
def test_arguments_that_json_does_not_have_are_refused(value: Any, where: str) -> None:
    """The place within the argument and the type are named, nothing is converted in silence."""
    with pytest.raises(InvalidSpecError, match=where):
        function_call(FunctionSource.of(echo), echo, [], {"a": value})


def test_missing_and_unknown_arguments_are_refused() -> None:
    """A call that could not work in the job fails before the job starts, with a hint about Airflow's context."""
    for args, kwargs in ([], {}), ([1, []], {"lr": 1}):
        with pytest.raises(InvalidSpecError, match=r"cannot be called: .*run_id"):
            function_call(FunctionSource.of(fit), fit, args, kwargs)


@pytest.mark.parametrize("text", ["", "two\nlines", "x" * (PARAMETER_TEXT + 1), "nul\0", "\udc80"])
def test_text_that_cannot_be_a_parameter_is_json(text: str) -> None:
    """Text that a tracking server or a command line would not take travels as JSON."""
    call = function_call(FunctionSource.of(echo), echo, [], {"a": text})
    assert call.parameters == {}
    assert run(echo, a=text)[0].returncode == 0
