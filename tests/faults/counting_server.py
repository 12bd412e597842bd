"""
A server that counts events and answers that they are saved, fast: ``counting_server.py``.

Prints its port, and when its standard input ends how many events there were, and how many came in all.
"""

from __future__ import annotations

import re
import socketserver
import sys
import threading
from functools import lru_cache

#: The number in each key that came, and how many came: one may come again, ahead of its turn.
seen: set[int] = set()
came = 0
lock = threading.Lock()
KEY = re.compile(rb'"idempotencyKey":"[0-9a-f]{12}-(\d+)"')


@lru_cache
def answer(events: int) -> bytes:
    """Return the answer to so many events; the first event of a run, which has no step yet, becomes step 1."""
    body = b"[" + b",".join([b'{"status":"saved","stepId":1}'] * events) + b"]"
    head = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


class Connection(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        global came
        while self.rfile.readline():
            size = 0
            while (line := self.rfile.readline()) != b"\r\n":
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    size = int(value)
            keys = KEY.findall(self.rfile.read(size))
            with lock:
                seen.update(map(int, keys))
                came += len(keys)
            self.wfile.write(answer(len(keys)))


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False


if __name__ == "__main__":
    with Server(("127.0.0.1", 0), Connection) as server:
        threading.Thread(target=server.serve_forever).start()
        print(server.server_address[1], flush=True)
        sys.stdin.read()
        server.shutdown()
        print(len(seen), came)
