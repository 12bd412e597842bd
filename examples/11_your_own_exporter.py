"""An exporter of your own: posts records to a collector, which is busy at first, so that they come again."""

import json
import threading
from collections.abc import Sequence
from contextlib import closing
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

from whyops_trace import WhyOps, traced_tool
from whyops_trace.exceptions import DeliveryError
from whyops_trace.exporters import Batch, Exporter, Outcome


class Collector(BaseHTTPRequestHandler):
    """Answers its first request with 503, and keeps what the others bring, each key once."""

    rows: ClassVar[dict[str, Any]] = {}
    answers = iter([503])

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = next(self.answers, 200)
        print(f"collector: {len(body)} rows, answered with {status}")
        self.rows.update({row["key"]: row for row in body} if status == 200 else {})
        self.send_response(status)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None: ...


class CollectorExporter(Exporter):
    name = "collector"
    remote = True  # it waits on a network, and so gets a thread of its own

    def __init__(self, port: int) -> None:
        self.port = port

    def export(self, batch: Batch) -> Sequence[Outcome]:
        rows = [{"key": r.idempotency_key, "type": r.type, "step": r.step} for r in batch.records]
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
            connection.request("POST", "/", json.dumps(rows))  # an error here: the same records come again
            if connection.getresponse().status != 200:
                raise DeliveryError("", wait=0.1)  # likewise; without a message nothing is logged
        return [Outcome.DELIVERED] * len(rows)


@traced_tool
def add(a: int, b: int) -> int:
    return a + b


with HTTPServer(("127.0.0.1", 0), Collector) as server:
    threading.Thread(target=server.serve_forever).start()
    with WhyOps(agent_name="shop", store=False, exporters=[CollectorExporter(server.server_port)]) as sdk:
        with sdk.trace("sum-1"):
            add(1, 2)
        print("{0.delivered} of {0.emitted} delivered".format(sdk.flush_sync()["collector"]))
    server.shutdown()
