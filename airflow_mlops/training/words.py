"""Words that a user chooses from. A wrong one is refused with the ones that exist."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from airflow_mlops.core.errors import InvalidSpecError, close_match


class Word(StrEnum):
    """One of a few words that a user gives."""

    @classmethod
    def called(cls) -> str:
        """Return what such a word is called in messages."""
        return f"The {cls.__name__.lower()}"

    @classmethod
    def of(cls, word: str) -> Self:
        """Return the member called *word*.

        :raises InvalidSpecError: there is none
        """
        known = [found.value for found in cls]
        if word not in known:
            hint = close_match(str(word), known)
            raise InvalidSpecError(f"{cls.called()} is {word!r}: {hint}It is one of {', '.join(known)}.")
        return cls(word)
