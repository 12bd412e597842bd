"""Two services over HTTP and an approval days later, in one trace: whyops-trace show latest"""

import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import httpx

from whyops_trace import WhyOps, flush_sync, resume, step, suspend, trace, traced_tool
from whyops_trace.integrations import http, wsgi

sdk = WhyOps(agent_name="shop")
client = http.attach(httpx.Client(trust_env=False))


@traced_tool
def take_from_stock(item: str) -> str:
    return f"one {item}"


def stock(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The other service: one line has its calls below the call that reached it."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [take_from_stock("tea").encode()]


@traced_tool
def reserve(url: str) -> str:
    return client.get(url).text


@traced_tool
def refund(amount: int) -> str:
    return f"refunded {amount}"


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


with make_server("127.0.0.1", 0, wsgi.Middleware(stock), handler_class=Quiet) as server:
    threading.Thread(target=server.handle_request).start()
    with trace("order-8841"):
        reserve(f"http://127.0.0.1:{server.server_port}")
        with step("ask a human"):
            token = suspend()  # a text, for a database

with resume(token):  # in another process, on another day
    refund(4999)

client.close()
flush_sync()
