"""A plain Python function as the command of a training job, for any image that has Python 3.9 or newer.

Pure. Source and JSON travel, never pickles: what runs can be read in the job's own description, and no version of
Python or of a library has to match. What would be lost on the way is refused before a job starts.
"""

from __future__ import annotations

import ast
import builtins
import dis
import inspect
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, Self

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.training import function_runner

LIMIT = 100 << 10
"""Bytes of source, and of arguments. Linux takes at most 128 KiB in one argument of a program."""

PARAMETER_TEXT = 500
"""Characters up to which a line of text is logged as a parameter: what every MLflow server takes."""

DECORATORS = {"train", "train_task", "setup", "teardown", "result", "skip_if", "run_if"}
"""Last names of decorators that mean something to Airflow only and are left behind."""

RUNNER = inspect.getsource(function_runner)


@dataclass(frozen=True)
class FunctionCall:
    """How a job runs the function: the fields of a training spec.

    :param parameters: arguments that are numbers, truth values, ``None`` or a line of text: logged to the tracking run
        and passed as ``--name value``; all others are in ``args`` as JSON
    """

    command: tuple[str, ...]
    args: tuple[str, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FunctionSource:
    """A function's text as it stands in its file, from its ``def`` on.

    :param file: name of the file, without its folder: folders differ between workers
    :param line: line of the file in which ``def`` is
    """

    name: str
    file: str
    line: int
    text: str

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Self:
        """Read the source of *function*.

        :raises InvalidSpecError: it cannot be run from its source alone; the message says what to change
        """
        plain = _plain_function(function)
        try:
            lines, first = inspect.getsourcelines(plain)
        except (OSError, TypeError) as error:
            raise _refused(plain.__name__, f"has no source that can be read ({error})", "Write it in a file") from error
        node, shift = _definition(lines)
        _refuse_decorators(node)
        top = node.lineno - shift
        text = "".join(lines[top - 1 : (node.end_lineno or node.lineno) - shift])
        _refuse_large(f"The source of {plain.__name__}()", text, "Move code into a package of the image")
        _refuse_outer_names(plain, node)
        return cls(plain.__name__, Path(plain.__code__.co_filename).name, first + top - 1, text)


def function_call(
    source: FunctionSource,
    function: Callable[..., Any],
    args: Collection[Any],
    kwargs: Mapping[str, Any],
    *,
    python: str = "python",
) -> FunctionCall:
    """Return the call of *function* with these arguments. Defaults that are parameters are logged, too.

    :param python: the interpreter in the image
    :raises InvalidSpecError: an argument is missing, unknown, too large or not made of JSON values
    """
    arguments = {name: _jsonable(value, name) for name, value in _bound(function, args, kwargs).items()}
    parameters = {name: value for name, value in arguments.items() if _is_parameter(value)}
    call = {
        "name": source.name,
        "file": source.file,
        "line": source.line,
        "arguments": {name: value for name, value in arguments.items() if name not in parameters},
        "text": [name for name, value in parameters.items() if isinstance(value, str)],
    }
    text = json.dumps(call)
    _refuse_large(f"What {source.name}() is called with", text, "Give it the address of a file, or an input")
    return FunctionCall((python, "-u", "-c", RUNNER), (source.text, text), parameters)


def _plain_function(function: Callable[..., Any]) -> FunctionType:
    """Return *function* if nothing but its source is needed to run it."""
    name = getattr(function, "__name__", repr(function))
    if not isinstance(function, FunctionType) or name == "<lambda>":
        raise _refused(name, "is not a function with a name of its own", "Define it with 'def'")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise _refused(name, "is a generator", "Return a result instead of yielding")
    if inspect.iscoroutinefunction(function):
        raise _refused(name, "is async", "Make it a plain function and call asyncio.run() in it")
    if hasattr(function, "__wrapped__"):
        raise _refused(name, "is wrapped by a decorator, which would be lost", "Decorate a function inside of it")
    if function.__code__.co_freevars:
        names = ", ".join(map(repr, function.__code__.co_freevars))
        raise _refused(name, f"uses {names} of the function around it", "Pass what it needs as arguments")
    kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
    if kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY}:
        raise _refused(name, "has arguments without names ('*args' or before '/')", "Give every argument a name")
    return function


def _definition(lines: Sequence[str]) -> tuple[ast.FunctionDef, int]:
    """Return the parsed function, and how many lines were put before it so that an indented one can be parsed."""
    shift = int(lines[0][:1].isspace())
    tree = ast.parse("if True:\n" * shift + "".join(lines))
    return next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)), shift


def _refuse_decorators(node: ast.FunctionDef) -> None:
    for decorator in node.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if ast.unparse(called).rpartition(".")[2] not in DECORATORS:
            what = f"has the decorator @{ast.unparse(decorator)}, which would be lost"
            raise _refused(node.name, what, "Decorate a function inside of it")


def _refuse_outer_names(function: FunctionType, node: ast.FunctionDef) -> None:
    """Refuse what the function takes from its module: the module is not sent."""
    bare = ast.Module([ast.FunctionDef(**{**dict(ast.iter_fields(node)), "decorator_list": []})], [])
    code = compile(ast.fix_missing_locations(bare), "<function>", "exec")  # this file's lazy annotations go for it, too
    used, own = set[str](), {"__name__"} | set(dir(builtins))
    for instruction in _instructions(code):
        if instruction.opname in ("STORE_NAME", "STORE_GLOBAL"):
            own.add(instruction.argval)
        elif instruction.opname in ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"):
            used.add(instruction.argval)
    if outer := sorted((used - own) & set(function.__globals__)):
        what = f"uses {', '.join(map(repr, outer))} of its file, which is not sent"
        raise _refused(node.name, what, "Import and define inside of it, or pass it as an argument")


def _instructions(code: CodeType) -> Iterator[dis.Instruction]:
    yield from dis.get_instructions(code)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _instructions(constant)


def _bound(function: Callable[..., Any], args: Collection[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return all arguments by name: those given, and defaults that are parameters."""
    signature = inspect.signature(function)
    try:
        given = dict(signature.bind(*args, **kwargs).arguments)
    except TypeError as error:
        name = getattr(function, "__name__", "function")
        hint = "Values of Airflow's context are not sent by themselves: pass them, for example run_id='{{ run_id }}'"
        raise _refused(name, f"cannot be called: {error}", hint) from error
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            given.update(given.pop(name, {}))
        elif name not in given and _is_parameter(parameter.default):
            given[name] = parameter.default
    return given


def _is_parameter(value: Any) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= PARAMETER_TEXT and value.isprintable()
    return value is None or isinstance(value, (bool, int, float))


def _jsonable(value: Any, where: str) -> Any:
    """Return *value* as JSON has it: mappings as dicts, sequences as lists."""
    if isinstance(value, Mapping):
        if bad := [key for key in value if not isinstance(key, str)]:
            raise _not_json(where, f"the key {bad[0]!r}", "Use text as keys")
        return {key: _jsonable(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)):
        return [_jsonable(item, f"{where}[{number}]") for number, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise _not_json(where, repr(value), "Pass it as text")
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise _not_json(where, f"a {type(value).__name__}", "Pass its parts, its text, or the address of a file")


def _not_json(where: str, what: str, instead: str) -> InvalidSpecError:
    return InvalidSpecError(f"The argument {where} holds {what}, which JSON does not have. {instead}.")


def _refuse_large(what: str, text: str, instead: str) -> None:
    size = len(text.encode(errors="surrogatepass"))
    if size > LIMIT:
        raise InvalidSpecError(f"{what} is {size} bytes long; at most {LIMIT} can be sent. {instead}.")


def _refused(name: str, what: str, instead: str) -> InvalidSpecError:
    return InvalidSpecError(f"{name}() cannot be sent to a job: it {what}. {instead}.")
