"""A gRPC face for the fake of Vertex AI, and a proxy that leads there, so that an unchanged gRPC client can be counted.

It decides nothing: ``GetCustomJob`` becomes the GET of the same job over REST, and everything else is refused. Whoever
trusts its certificate, which is made anew each time and good for one host and one day, may be led here instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

METHOD = "/google.cloud.aiplatform.v1.JobService/GetCustomJob"
THREADS = 8


@contextlib.contextmanager
def grpc_face(host: str, address: str, roots: Path) -> Iterator[str]:
    """Serve *host* on this machine, write the certificate to trust to *roots*, and yield the address of the proxy."""
    import grpc

    key, certificate = _certificate(host)
    roots.write_bytes(certificate)
    server = grpc.server(ThreadPoolExecutor(THREADS), handlers=[_handler(address)])
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
    server.start()
    try:
        with _proxy(port) as proxy:
            yield proxy
    finally:
        server.stop(None).wait()


def _handler(address: str) -> Any:
    import grpc
    from google.cloud.aiplatform_v1 import CustomJob, GetCustomJobRequest
    from google.protobuf import json_format

    place, held = urlsplit(address).netloc, threading.local()

    def get(raw: bytes, context: Any) -> bytes:
        name = GetCustomJobRequest.pb().FromString(raw).name
        held.wire = getattr(held, "wire", None) or http.client.HTTPConnection(place)
        held.wire.request("GET", f"/v1/{name}")
        answer = held.wire.getresponse()
        found = json.loads(answer.read())
        if answer.status != 200:
            context.abort(grpc.StatusCode[found["error"]["status"]], found["error"]["message"])
        return bytes(json_format.ParseDict(found, CustomJob.pb()()).SerializeToString())

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(get) if details.method == METHOD else None

    return Handler()


@contextlib.contextmanager
def _proxy(port: int) -> Iterator[str]:
    """Run a proxy that takes every connection to *port* of this machine, wherever it was meant to go."""
    loop, started = asyncio.new_event_loop(), threading.Event()
    found: list[int] = []

    async def serve() -> None:
        server = await asyncio.start_server(lambda *ends: _tunnel(*ends, port), "127.0.0.1", 0, backlog=1024)
        found.append(server.sockets[0].getsockname()[1])
        started.set()

    def run() -> None:
        loop.run_until_complete(serve())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    started.wait()
    try:
        yield f"http://127.0.0.1:{found[0]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def _tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    await reader.readuntil(b"\r\n\r\n")
    there, back = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    await asyncio.gather(_pump(reader, back), _pump(there, writer))


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    target.close()


def _certificate(host: str) -> tuple[bytes, bytes]:
    """Return a key and a certificate for *host* that vouches for itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(encoding, *plain), made.public_bytes(encoding)
