"""
A model that needs no network: a script behind an HTTP server on this machine.

It speaks the format of OpenAI's chat completions, in one piece or streamed, so the agent calls it like any model. Its
answers follow from the conversation, as a model's do, but the plot is fixed.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

Message = dict[str, Any]

#: Characters of a token, by estimate.
_TOKEN: Final = 4

#: The model's first query. It assumes a column that does not exist.
_WRONG_QUERY: Final = "SELECT id, item, total_cents FROM orders WHERE customer = 'Mia Schneider'"
_RIGHT_QUERY: Final = (
    "SELECT orders.id, item, total_cents, delivered_on FROM orders JOIN customers ON customers.id = customer_id "
    "JOIN shipments ON order_id = orders.id WHERE name = 'Mia Schneider' ORDER BY orders.id"
)
_WRITTEN_ON: Final = date(2026, 3, 7)


def next_message(messages: list[Message]) -> Message:
    """Return the model's next message, from the number of its messages so far and the results of its tools."""
    results = [json.loads(message["content"]) for message in messages if message["role"] == "tool"]
    match sum(message["role"] == "assistant" for message in messages):
        case 0:
            thought = "I need her orders. The customer's name should be in the table of orders."
            return {**_calls(("run_sql", {"query": _WRONG_QUERY})), "reasoning_content": thought}
        case 1:
            thought = f"That failed: {results[0]['error']}. The names are in a table of their own."
            return {**_calls(("run_sql", {"query": _RIGHT_QUERY})), "reasoning_content": thought}
        case 2:
            return _calls(("read_file", {"name": "returns.txt"}))
        case 3:
            broken = results[1][0]
            days = (_WRITTEN_ON - date.fromisoformat(broken["delivered_on"])).days
            arguments = {"total_cents": broken["total_cents"], "days_since_delivery": days, "damaged": True}
            return _calls(("refund", arguments))
        case 4:
            due = results[3]["refund_cents"] / 100
            return {
                "role": "assistant",
                "content": f"Order {results[1][0]['id']}: {due:.2f} EUR are due to her.",
            }
        case 5:
            others = [row["id"] for row in results[1] if row["delivered_on"] is None]
            tracks = [("track_parcel", {"order": order}) for order in others]
            return _calls(*tracks, ("search_log", {"text": f"order {others[0]}"}))
        case _:
            return {"role": "assistant", "content": _letter(results)}


def _calls(*calls: tuple[str, dict[str, Any]]) -> Message:
    tool_calls = [
        {
            "id": f"call_{name}_{k}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for k, (name, arguments) in enumerate(calls)
    ]
    return {"role": "assistant", "content": None, "tool_calls": tool_calls}


def _letter(results: list[Any]) -> str:
    orders, refund, first, second, log = results[1], results[3], *results[4:]
    items = {order["id"]: order["item"] for order in orders}
    return (
        f"Dear Mia, we are sorry about the {orders[0]['item']}: {refund['refund_cents'] / 100:.2f} EUR are on their\n"
        f"way back to you. Your {items[first['order']]} are {first['status']} with {first['carrier']} (last seen\n"
        f"{log[-1][:10]}), and your {items[second['order']]} is {second['status']}."
    )


def usage(messages: list[Message], answer: Message) -> dict[str, Any]:
    """Return the token counts of a turn. The conversation up to the model's last message counts as cached."""
    spoken = [k for k, message in enumerate(messages) if message["role"] == "assistant"]
    prompt, cached = _tokens(messages), _tokens(messages[: spoken[-1]]) if spoken else 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": _tokens([answer]),
        "total_tokens": prompt + _tokens([answer]),
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _tokens(messages: list[Message]) -> int:
    return sum(len(json.dumps(message)) for message in messages) // _TOKEN


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise the body waits 40 ms for the head to be acknowledged

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        messages = request["messages"]
        message = next_message(messages)
        reason = "tool_calls" if message.get("tool_calls") else "stop"
        about = {"id": f"chatcmpl-{len(messages)}", "created": 0, "model": request["model"]}
        if request.get("stream"):
            self._stream(about, message["content"], reason, usage(messages, message))
        else:
            choice = {"index": 0, "message": message, "finish_reason": reason}
            answer = {"object": "chat.completion", "choices": [choice], "usage": usage(messages, message)}
            body = json.dumps({**about, **answer}).encode()
            self._head("application/json", {"Content-Length": str(len(body))})
            self.wfile.write(body)

    def _stream(self, about: Message, text: str, reason: str, counts: dict[str, Any]) -> None:
        self.close_connection = True  # the end of the connection is the end of the stream
        self._head("text/event-stream", {"Connection": "close"})
        about = {**about, "object": "chat.completion.chunk"}
        for word in re.findall(r"\S+\s*", text):
            piece = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            self._event({**about, "choices": [piece]})
        self._event({**about, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        self._event({**about, "choices": [], "usage": counts})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, chunk: Message) -> None:
        self.wfile.write(b"data: %b\n\n" % json.dumps(chunk).encode())

    def _head(self, content_type: str, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {"Content-Type": content_type, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the demo's output is the trace."""


@contextmanager
def serve() -> Iterator[str]:
    """Serve the scripted model on a free port of 127.0.0.1, and yield its URL for clients."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="demo-model", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
