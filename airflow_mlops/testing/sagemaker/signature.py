"""Who sent a request, and to which region: its signature, made again with the secret key and compared.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from airflow_mlops.testing.sagemaker.problems import Problem

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/\d+/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request, "
    r"SignedHeaders=(?P<headers>[^,]+), Signature=(?P<signature>[0-9a-f]+)"
)


@dataclass(frozen=True)
class Signed:
    """Whom a request is for."""

    service: str
    region: str


def check_signature(keys: Mapping[str, str], method: str, url: str, headers: Mapping[str, str], body: bytes) -> Signed:
    """Return service and region of a request that one of *keys* (access key -> secret key) has signed.

    :raises Problem: nobody known has
    """
    known = {name.lower(): value for name, value in headers.items()}
    found = _AUTHORIZATION.fullmatch(known.get("authorization", ""))
    if found is None:
        raise Problem("MissingAuthenticationToken", "Missing Authentication Token")
    if found["key"] not in keys:
        raise Problem("UnrecognizedClientException", "The security token included in the request is invalid.")
    auth, request_class = (importlib.import_module(f"botocore.{part}") for part in ("auth", "awsrequest"))
    credentials = importlib.import_module("botocore.credentials").Credentials(found["key"], keys[found["key"]])
    make = auth.S3SigV4Auth if found["service"] == "s3" else auth.SigV4Auth
    signer = make(credentials, found["service"], found["region"])
    signed = {name: known[name] for name in found["headers"].split(";") if name in known}
    request = request_class.AWSRequest(method, url, headers=signed, data=body)
    request.context |= {"timestamp": known["x-amz-date"], "payload_signing_enabled": True}
    if (
        signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
        != found["signature"]
    ):
        raise Problem("InvalidSignatureException", "The request signature we calculated does not match.")
    return Signed(found["service"], found["region"])
