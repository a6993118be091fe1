"""Input either fits the model or is refused with the name of the column."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.serving.schema import Field, Schema, Table, fit

SCHEMA = Schema((Field("x", "double"), Field("n", "long"), Field("city", "string", required=False)))


def test_columns_come_in_the_models_order_and_unknown_ones_are_left_out() -> None:
    """The model gets its own columns, whatever the client sends beside them; optional ones may be missing."""
    found = fit(Table(("extra", "n", "x"), ([0], [1], [2.5])), SCHEMA)
    assert found == Table(("x", "n", "city"), ([2.5], [1], [None]))


def test_rows_without_names_are_taken_by_position() -> None:
    """A row of the right width needs no names; another width is refused with the names the model takes."""
    assert fit(Table((), ([1.0], [2], ["b"])), SCHEMA).names == ("x", "n", "city")
    with pytest.raises(InvalidSpecError, match="has 2 values, the model takes 3: x, n, city"):
        fit(Table((), ([1.0], [2])), SCHEMA)


def test_a_missing_column_is_named_with_a_close_match() -> None:
    """The message names what is missing and what was probably meant."""
    schema = Schema((Field("distance", "double"),))
    with pytest.raises(InvalidSpecError, match="lacks the column 'distance': did you mean 'distence'"):
        fit(Table(("distence",), ([1.0],)), schema)


@pytest.mark.parametrize(
    ("kind", "value", "word"),
    [
        ("double", "1.0", "a string"),
        ("double", True, "a boolean"),
        ("long", None, "null"),
        ("long", 1.5, "a number with a fraction"),
        ("boolean", 1, "a number"),
        ("string", 3, "a number"),
        ("long", {}, "an object"),
    ],
)
def test_a_wrong_type_is_refused_by_column_and_row_without_the_value(kind: str, value: Any, word: str) -> None:
    """The message says where and what kind of value, and never the value itself."""
    fine: dict[str, Any] = {"double": 1.0, "long": 1, "boolean": True, "string": "a"}
    with pytest.raises(InvalidSpecError, match=f"Column 'c' must be {kind}, row 1 has {word}"):
        fit(Table(("c",), ([fine[kind], value],)), Schema((Field("c", kind),)))


def test_whole_floats_are_integers() -> None:
    """JSON writers that know no integers may send 3.0 for 3."""
    assert fit(Table(("n",), ([3.0, 4],)), Schema((Field("n", "long"),))).columns == ([3, 4],)
    with pytest.raises(InvalidSpecError, match="row 2"):
        fit(Table(("n",), ([3.0, 4, 0.5],)), Schema((Field("n", "long"),)))


def test_no_rows_are_refused() -> None:
    """An empty table never reaches a model."""
    for table in (Table((), ()), Table(("x",), ([],))):
        with pytest.raises(InvalidSpecError, match="no rows"):
            fit(table, SCHEMA)


@given(st.lists(st.floats() | st.integers() | st.none(), min_size=1), st.permutations(["x", "y", "z"]))
def test_fitting_keeps_every_value(values: list[Any], order: list[str]) -> None:
    """Whatever order the columns come in, each keeps its values and the result has the model's order."""
    schema = Schema(tuple(Field(name, "double") for name in ("x", "y", "z")))
    columns = {name: [*values, index] for index, name in enumerate(order)}
    found = fit(Table(tuple(columns), tuple(columns.values())), schema)
    assert found.names == ("x", "y", "z")
    assert all(found.columns[i] is columns[name] for i, name in enumerate(found.names))


@given(
    st.dictionaries(
        st.text(max_size=3), st.lists(st.none() | st.booleans() | st.floats() | st.text(), min_size=2, max_size=2)
    )
)
def test_fitting_never_fails_in_another_way(columns: dict[str, list[Any]]) -> None:
    """Any table at all either fits or is refused with our own error."""
    try:
        assert fit(Table(tuple(columns), tuple(columns.values())), SCHEMA).names == ("x", "n", "city")
    except InvalidSpecError as error:
        assert str(error)  # noqa: PT017 - both ways are right
