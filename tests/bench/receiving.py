"""
A receiver of OTLP that takes everything: ``python tests/bench/receiving.py``.

It prints its port, and answers a GET with the number of bytes that it has taken.
"""

from __future__ import annotations

import http.server

taken = 0


class Handler(http.server.BaseHTTPRequestHandler):
    """Takes what comes."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        global taken
        taken += len(self.rfile.read(int(self.headers["content-length"])))
        self.answer(b"")

    def do_GET(self) -> None:
        self.answer(str(taken).encode())

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.send_header("content-type", "application/x-protobuf")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
