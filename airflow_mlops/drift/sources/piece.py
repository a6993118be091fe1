"""How a source hands out data: piece by piece, and of each piece only the column that is asked for.

A source is anything with ``pieces`` and ``warnings``; captured traffic of other platforms comes in by the same door.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from airflow_mlops.core.errors import NotFoundError, close_match


@dataclass(frozen=True)
class Piece:
    """Some rows of the data.

    :param rows: number of rows
    :param names: columns, in the order of the data
    :param read: returns the arrow array of one column, *rows* long
    """

    rows: int
    names: tuple[str, ...]
    read: Callable[[str], Any]


@dataclass(frozen=True)
class Selection:
    """Which columns are wanted.

    :param columns: only these; empty for all
    :param exclude: not these
    :param categorical: columns of numbers that are codes, to be treated as categories
    """

    columns: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()

    def of(self, names: list[str]) -> tuple[str, ...]:
        """Return the wanted ones of *names*.

        :raises NotFoundError: a column that was asked for is not there
        """
        for name in self.columns:
            if name not in names:
                raise NotFoundError(
                    f"The data has no column {name!r}: {close_match(name, names)}It has {', '.join(names)}."
                )
        wanted = self.columns or tuple(names)
        return tuple(name for name in wanted if name not in self.exclude)


class Source(Protocol):
    """Data that can be read in pieces."""

    @property
    def warnings(self) -> list[str]:
        """What was left out while reading, one sentence each."""
        ...

    def pieces(self, selection: Selection) -> Iterator[Piece]:
        """Yield the data once. The pieces depend on how the files are laid out, not on what is selected."""
        ...
