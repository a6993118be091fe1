"""How the gateway and a worker talk over their socket: JSON messages, each behind its length in four bytes.

JSON and not pickle: neither side can be made to run what the other one sends. Answers come in the order of questions.
"""

from __future__ import annotations

import json
import struct
from asyncio import StreamReader
from typing import Any, BinaryIO

_LENGTH = struct.Struct(">I")


def pack(message: Any) -> bytes:
    """Return *message* as one frame. Numbers that JSON does not have travel as ``NaN`` and ``Infinity``."""
    payload = json.dumps(message, separators=(",", ":")).encode()
    return _LENGTH.pack(len(payload)) + payload


def read_frame(stream: BinaryIO) -> Any | None:
    """Return the next message, or ``None`` when the other side is gone."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    payload = stream.read(_LENGTH.unpack(head)[0])
    return json.loads(payload)


async def receive_frame(reader: StreamReader) -> Any:
    """Return the next message.

    :raises asyncio.IncompleteReadError: the other side is gone
    """
    head = await reader.readexactly(_LENGTH.size)
    return json.loads(await reader.readexactly(_LENGTH.unpack(head)[0]))
