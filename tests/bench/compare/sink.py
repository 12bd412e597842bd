"""
The server that all contenders send to: ``sink.py PORT``, in a process of its own.

It answers as each tool's own server would, as far as the tool insists, keeps what it was sent as it came, and looks
into it only when asked: while a contender is timed, it does next to nothing. On a second port, the next one, it takes
commands, a line each, and answers with a line of JSON: ``clear``, ``count``, ``fail WHAT SECONDS``, ``recovered``.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import re
import sys
import zlib
from typing import Any

import httptools
import uvloop
import zstandard

#: What each argument and each result of a call begins with.
ARGUMENT = re.compile(rb"qz(\d{7})\.")
RESULT = re.compile(rb"(?<!q)z(\d{7})\.")

PROJECT = {"id": "00000000-0000-0000-0000-000000000001", "name": "compare", "entityName": "compare"}
AGENT = {"success": True, "agentId": "a", "agentVersionId": "v", "status": "created", "versionHash": "h"}
LANGSMITH_BATCHES = {
    "use_multipart_endpoint": True,
    "size_limit": 100,
    "size_limit_bytes": 20_971_520,
    "scale_up_qsize_trigger": 1_000,
    "scale_up_nthreads_limit": 16,
    "scale_down_nempty_trigger": 4,
}
LANGSMITH = {
    "version": "0.12.0",
    "batch_ingest_config": LANGSMITH_BATCHES,
    "instance_flags": {"zstd_compression_enabled": True, "gzip_body_enabled": True},
}
#: What paths that no contender can do without are answered with; all others with an empty object.
ANSWERS: dict[str, Any] = {
    "/api/entities/init": AGENT,  # WhyOps
    "/info": LANGSMITH,
    "/v1/project": PROJECT,  # Braintrust
    "/graphql": {"data": {"project": PROJECT}},  # Weave
    "/server_info": {"min_required_weave_python_version": "0.0.1"},
    "/v1/info": {"project_name": "compare", "project_url": "http://localhost"},  # Logfire
}


def decoded(encoding: bytes, body: bytes) -> bytes:
    """Return a body without its compression."""
    if encoding == b"gzip":
        return gzip.decompress(body)
    if encoding == b"deflate":
        return zlib.decompress(body)
    if encoding == b"zstd":
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body), read_across_frames=True) as stream:
            body = stream.read()
    return body


class Sink:
    """
    What was sent, and how the next request is met.

    Attributes:
        failing: "", or what is wrong: "refuse" connections, "hang", or answer "503".
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.bodies: list[tuple[bytes, bytes]] = []
        self.failing = ""
        self.well = asyncio.Event()
        self.connections: set[asyncio.Transport] = set()
        self.server: asyncio.Server | None = None

    async def listen(self) -> None:
        """Be well, whatever was before; who was left hanging is cut off."""
        if self.failing == "hang":
            self.cut()
        self.failing = ""
        if self.server is None:
            loop = asyncio.get_running_loop()
            self.server = await loop.create_server(
                lambda: Connection(self), "127.0.0.1", self.port, backlog=1024
            )
        self.well.set()

    async def fail(self, what: str, seconds: float) -> None:
        """Be unwell for a while."""
        self.failing = what
        self.well.clear()
        if what == "refuse" and self.server is not None:
            self.server.close()
            self.server = None
            self.cut()
        loop = asyncio.get_running_loop()
        loop.call_later(seconds, lambda: loop.create_task(self.listen()))

    def cut(self) -> None:
        """Reset all connections."""
        for connection in tuple(self.connections):
            connection.abort()

    def count(self) -> dict[str, Any]:
        """Return the calls whose argument and result came, by their numbers, and how many spans of theirs did."""
        bodies = [decoded(encoding, body) for encoding, body in self.bodies]
        arguments = {int(found) for body in bodies for found in ARGUMENT.findall(body)}
        results = {int(found) for body in bodies for found in RESULT.findall(body)}
        spans = sum(body.count(b"compared_tool") for body in bodies)
        size = sum(len(body) for _, body in self.bodies)
        return {"calls": sorted(arguments & results), "spans": spans, "requests": len(bodies), "bytes": size}

    def answer(self, path: str, kind: bytes, body: bytes) -> tuple[bytes, bytes]:
        """Return the type and the body of an answer."""
        if kind.startswith(b"application/x-protobuf"):
            return kind, b""
        if path == "/mlflow/version":
            return b"text/plain", b"3.17.2"
        if path.endswith("/apikey/login"):
            url = f"http://127.0.0.1:{self.port}"
            found: Any = {"org_info": [{"id": "o", "name": "compare", "api_url": url, "proxy_url": url}]}
        elif path.endswith("/mlflow/traces"):
            found = json.loads(body)
            found["trace"]["trace_info"].setdefault("tags", {})["mlflow.trace.spansLocation"] = (
                "TRACKING_STORE"
            )
        elif path == "/api/events" and body.startswith(b"["):
            found = [{"status": "saved", "stepId": 1}] * body.count(b'"idempotencyKey":')
        else:
            found = ANSWERS.get(path, {})
        return b"application/json", json.dumps(found).encode()

    async def command(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Obey a connection of the harness."""
        while words := (await reader.readline()).decode().split():
            said: Any = None
            if words[0] == "clear":
                self.bodies.clear()
            elif words[0] == "count":
                said = self.count()
            elif words[0] == "fail":
                await self.fail(words[1], float(words[2]))
            elif words[0] == "recovered":
                await self.well.wait()
            writer.write(json.dumps(said).encode() + b"\n")
            await writer.drain()
        writer.close()


class Connection(asyncio.Protocol):
    """One connection of a contender."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.begin()

    def begin(self) -> None:
        """Expect a request."""
        self.path = ""
        self.headers: dict[bytes, bytes] = {}
        self.parts: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.sink.connections.add(transport)
        self.parser = httptools.HttpRequestParser(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.sink.connections.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.path += url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if b"expect" in self.headers and self.sink.failing != "hang":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        self.parts.append(part)

    def on_message_complete(self) -> None:
        if self.sink.failing == "hang":
            return
        body, status = b"".join(self.parts), b"200 OK"
        if self.sink.failing:
            kind, answer, status = b"text/plain", b"", b"503 Service Unavailable"
        else:
            self.sink.bodies.append((self.headers.get(b"content-encoding", b""), body))
            kind, answer = self.sink.answer(
                self.path.partition("?")[0], self.headers.get(b"content-type", b""), body
            )
        head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
        self.transport.write(head % (status, kind, len(answer)) + answer)
        if not self.parser.should_keep_alive():
            self.transport.close()
        self.begin()


async def main(port: int) -> None:
    """Serve until killed."""
    sink = Sink(port)
    await sink.listen()
    await asyncio.start_server(sink.command, "127.0.0.1", port + 1)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
