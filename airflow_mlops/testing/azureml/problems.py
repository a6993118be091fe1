"""What the service refuses, in the shape of Azure's errors.

https://learn.microsoft.com/rest/api/azure/#async-operations-throttling-and-paging, with what the job service adds in
``additionalInfo``.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


class Problem(Exception):  # noqa: N818 - an answer, not a fault of the server
    """An answer other than success: *code* is Azure's word, *message* is for people, *inner* are codes within it."""

    def __init__(
        self, status: int, code: str, message: str, *, inner: tuple[str, ...] = (), retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.inner, self.retry_after = status, code, message, inner, retry_after

    def body(self) -> Json:
        """Return the body of the answer."""
        more = [{"type": "ComponentName", "info": {"value": "managementfrontend"}}]
        if self.inner:
            nested: Json | None = None
            for code in reversed(self.inner):
                nested = {"code": code, "innerError": nested}
            more.append({"type": "InnerError", "info": {"value": nested}})
        return {"error": {"code": self.code, "message": self.message, "details": [], "additionalInfo": more}}


def bad(message: str) -> Problem:
    """Return the refusal of a request."""
    return Problem(400, "UserError", message, inner=("BadArgument",))


def not_found(what: str) -> Problem:
    """Return the 404 for one thing."""
    return Problem(404, "UserError", f"{what} was not found", inner=("NotFound",))


def immutable(names: list[str]) -> Problem:
    """Return the refusal to change a job, in the service's own words."""
    what = ",  ".join(names)
    message = (
        "A job with this name already exists. If you are trying to create a new job, use a different name. "
        f"If you are trying to update an existing job, the existing job's {what} cannot be changed. "
        "Only description, tags, displayName, properties, and isArchived can be updated."
    )
    return Problem(400, "UserError", message, inner=("Immutable", "JobPropertyImmutable"))
