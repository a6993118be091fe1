"""The demo's last page: what happened to every month, and where the time went."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

HEAD = ("month", "data md5", "validation", "drift", "challenger AUC", "champion AUC", "decision", "traffic")


@dataclass
class Row:
    """One month, or one incident."""

    month: str
    md5: str = "-"
    validation: str = "-"
    drift: str = "-"
    challenger: str = "-"
    champion: str = "-"
    decision: str = "-"
    traffic: str = "-"
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return asdict(self)

    def cells(self) -> tuple[str, ...]:
        """Return what the table shows."""
        return (
            self.month,
            self.md5[:8],
            self.validation,
            self.drift,
            self.challenger,
            self.champion,
            self.decision,
            self.traffic,
        )


def render(rows: list[Row]) -> str:
    """Return the table as text, columns as wide as they need to be."""
    lines = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([text[0], "-" * sum(widths, 2 * (len(widths) - 1)), *text[1:]])


def interval(score: dict[str, Any] | None) -> str:
    """Return ``0.712 [0.698, 0.726]``, or a dash."""
    if not score or score.get("value") is None:
        return "-"
    low, high = score.get("low"), score.get("high")
    return f"{score['value']:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else "")
