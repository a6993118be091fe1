"""What AWS refuses, as errors that tell the caller what to do. Pure.

Codes: https://docs.aws.amazon.com/sagemaker/latest/APIReference/CommonErrors.html
"""

from __future__ import annotations

from typing import Any

from airflow_mlops.core.errors import (
    ConflictError,
    InvalidSpecError,
    MlopsError,
    NotFoundError,
    PlatformUnavailableError,
    QuotaExceededError,
    redact,
)

CODES: dict[str, type[MlopsError]] = {
    "ResourceNotFound": NotFoundError,
    "ResourceNotFoundException": NotFoundError,
    "NoSuchKey": NotFoundError,
    "NoSuchBucket": NotFoundError,
    "404": NotFoundError,
    "ResourceInUse": ConflictError,
    "ConflictException": ConflictError,
    "ResourceLimitExceeded": QuotaExceededError,
    "LimitExceededException": QuotaExceededError,
    "ThrottlingException": PlatformUnavailableError,
    "Throttling": PlatformUnavailableError,
    "RequestLimitExceeded": PlatformUnavailableError,
    "TooManyRequestsException": PlatformUnavailableError,
    "SlowDown": PlatformUnavailableError,
    "RequestExpired": PlatformUnavailableError,
    "ExpiredToken": PlatformUnavailableError,  # new credentials may be there next time
    "ExpiredTokenException": PlatformUnavailableError,
}
"""Codes that are in this table mean these errors; any other is a refusal, or with HTTP 5xx a fault of the service."""

NO_ACCESS = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403")
BAD_KEY = (
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "IncompleteSignature",
    "MissingAuthenticationToken",
)

NOT_THERE = ("requested resource not found", "does not exist", "could not find")
"""How SageMaker says in a ``ValidationException`` that there is no such job."""

OURS = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "UnauthorizedSSOTokenError",
    "SSOTokenLoadError",
    "ProfileNotFound",
    "ConfigParseError",
    "NoRegionError",
    "InvalidRegionError",
    "ParamValidationError",
)
"""Errors of the SDK before anything is sent. All its others are about the way to the service."""


def refusal(error: Any, what: str, conn_id: str) -> MlopsError:
    """Return the error that tells the caller what to do about one of ``botocore``."""
    answer = getattr(error, "response", None)
    if isinstance(answer, dict) and "Error" in answer:
        return _answered(answer, what, conn_id)
    text = f"AWS {what} was not done ({type(error).__name__}: {redact(str(error))[:1000]})."
    if type(error).__name__ in OURS:
        return InvalidSpecError(f"{text} Check the request, and connection {conn_id!r}.")
    return PlatformUnavailableError(f"{text} Check that connection {conn_id!r} leads to AWS, or try again later.")


def _answered(answer: dict[str, Any], what: str, conn_id: str) -> MlopsError:
    code, told = str(answer["Error"].get("Code", "")), redact(str(answer["Error"].get("Message", "")))[:1000]
    status = int((answer.get("ResponseMetadata") or {}).get("HTTPStatusCode") or 0)
    text = f"AWS refused {what} ({code}): {told}"
    if code in NO_ACCESS:
        return InvalidSpecError(f"{text} Give the account of connection {conn_id!r} the right to it.")
    if code in BAD_KEY:
        return InvalidSpecError(f"{text} Check the credentials of connection {conn_id!r}.")
    if code == "ValidationException" and any(sign in told.lower() for sign in NOT_THERE):
        return NotFoundError(text)
    if code in CODES:
        return CODES[code](text)
    if status >= 500 or status == 429:
        return PlatformUnavailableError(f"AWS failed at {what} ({code}, HTTP {status}): {told} Try again later.")
    return InvalidSpecError(text)
