"""Roles that are assumed: of the Security Token Service, ``AssumeRole`` alone. Any role may be assumed.

https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
"""

from __future__ import annotations

import urllib.parse
from datetime import UTC, datetime, timedelta

from airflow_mlops.testing.sagemaker.problems import Problem
from airflow_mlops.testing.sagemaker.world import World
from airflow_mlops.testing.wire.listener import Answer

XMLNS = "https://sts.amazonaws.com/doc/2011-06-15/"


def assume_role(world: World, raw: bytes) -> Answer:
    """Return an access key of a role, for as long as the world's pace has it.

    :raises Problem: it is another request
    """
    asked = dict(urllib.parse.parse_qsl(raw.decode()))
    if asked.get("Action") != "AssumeRole" or not asked.get("RoleArn") or not asked.get("RoleSessionName"):
        raise Problem("InvalidAction", "The fake serves AssumeRole with RoleArn and RoleSessionName only.")
    key, secret = world.new_key()
    until = (datetime.now(UTC) + timedelta(seconds=world.pace.role)).strftime("%Y-%m-%dT%H:%M:%SZ")
    fields = {"AccessKeyId": key, "SecretAccessKey": secret, "SessionToken": "token", "Expiration": until}
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
    body = f"<AssumeRoleResult><Credentials>{inner}</Credentials></AssumeRoleResult>"
    told = f'<AssumeRoleResponse xmlns="{XMLNS}">{body}</AssumeRoleResponse>'
    return Answer(200, told.encode(), content_type="text/xml")
