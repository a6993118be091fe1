"""How git gets in: credentials travel in its environment, and only to the host they are for.

They must never be written to a file, an argument list or a message.
"""

from __future__ import annotations

import base64
import os
from urllib.parse import unquote, urlsplit, urlunsplit

from airflow_mlops.core.errors import InvalidSpecError


def split_credentials(address: str) -> tuple[str, str, str]:
    """Return the address without credentials, the user name and the password that were in it."""
    if not address or address.startswith("-"):
        raise InvalidSpecError(f"{address!r} is not the address of a git repository. Give a URL or a path.")
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or "@" not in parts.netloc:
        return address, "", ""
    clean = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return clean, unquote(parts.username or ""), unquote(parts.password or "")


def git_environment(address: str, login: str, password: str, author: str) -> dict[str, str]:
    """Return the environment for git: who commits, no questions asked, and the password for this one host."""
    name, _, mail = author.rstrip(">").partition(" <")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k.startswith(("GIT_SSH", "GIT_SSL"))}
    identity = {
        f"GIT_{who}_{what}": v for who in ("AUTHOR", "COMMITTER") for what, v in (("NAME", name), ("EMAIL", mail))
    }
    quiet = {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", "GIT_ASKPASS": "true"}
    kept.setdefault("GIT_SSH_COMMAND", "ssh -oBatchMode=yes")
    return {**kept, **identity, **quiet, **_authorization(address, login, password)}


def _authorization(address: str, login: str, password: str) -> dict[str, str]:
    """Tell git to send basic authentication to this host alone."""
    parts = urlsplit(address)
    if not password or parts.scheme not in ("http", "https"):
        return {}
    token = base64.b64encode(f"{login}:{password}".encode()).decode()
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"http.{parts.scheme}://{parts.netloc}/.extraHeader",
        "GIT_CONFIG_VALUE_0": f"Authorization: Basic {token}",
    }
