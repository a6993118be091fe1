"""The program that reads a job's secrets from Azure Key Vault at its start. It is sent as text: no SDK needed.

Python 3.9 and the standard library only. It is run as ``python -c <this text> <audience> NAME=<address> ...`` and
prints the shell's ``export`` lines. It must never print a value anywhere else.

Vendor pages: https://learn.microsoft.com/rest/api/keyvault/secrets/get-secret/get-secret and
https://learn.microsoft.com/azure/machine-learning/how-to-identity-based-service-authentication
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

VERSION = "7.4"
ATTEMPTS = 4


def main(audience: str, wanted: list[str]) -> None:
    """Print the line that sets each variable."""
    token = ask(*identity(audience))["access_token"]
    for pair in wanted:
        name, _, address = pair.partition("=")
        found = ask(f"{address}?api-version={VERSION}", {"Authorization": f"Bearer {token}"})
        print(f"export {name}={shlex.quote(found['value'])}")  # noqa: T201 - the shell of the job reads it


def identity(audience: str) -> tuple[str, dict[str, str]]:
    """Return where the job's own identity gets its token: the user's, if the job runs as a user, else the compute's."""
    env = os.environ
    if env.get("OBO_ENDPOINT"):
        return f"{env['OBO_ENDPOINT']}?{urllib.parse.urlencode({'resource': audience})}", {}
    if not env.get("MSI_ENDPOINT"):
        sys.exit("This job has no identity. Set the option 'identity' and give the compute a managed identity.")
    query = {"resource": audience, "api-version": "2017-09-01"}
    if env.get("DEFAULT_IDENTITY_CLIENT_ID"):
        query["clientid"] = env["DEFAULT_IDENTITY_CLIENT_ID"]
    return f"{env['MSI_ENDPOINT']}?{urllib.parse.urlencode(query)}", {"secret": env.get("MSI_SECRET", "")}


def ask(address: str, headers: dict[str, str]) -> dict[str, Any]:
    """Return the JSON answer; what may pass is asked again."""
    where = address.partition("?")[0]
    for attempt in range(1, ATTEMPTS + 1):
        try:
            request = urllib.request.Request(address, headers=headers)  # noqa: S310 - our own addresses
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            if attempt == ATTEMPTS or (error.code != 429 and error.code < 500):
                sys.exit(f"{where} answered HTTP {error.code}. Check the secret's name and the identity's rights.")
        except OSError as error:
            if attempt == ATTEMPTS:
                sys.exit(f"{where} did not answer: {error}")
        time.sleep(2**attempt / 4)
    raise AssertionError("the last attempt returns or ends the program")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
