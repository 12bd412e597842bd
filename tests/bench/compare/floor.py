"""
What tracing cannot be cheaper than, written without regard for anything else: two floors.

Nothing here redacts, survives an exception of its own, bounds its memory or works across a fork.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import http.client
import inspect
import json
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from time import perf_counter_ns, time_ns
from typing import Any

Function = Callable[..., Any]

#: The trace and the span that a call is in.
current: contextvars.ContextVar[tuple[int, int]] = contextvars.ContextVar("current", default=(0, 0))
new_id = functools.partial(random.getrandbits, 64)
#: Events of a request, and on the deque before the thread is woken.
BATCH = 512


@contextlib.contextmanager
def trace() -> Iterator[None]:
    """Begin a trace."""
    token = current.set((new_id(), 0))
    try:
        yield
    finally:
        current.reset(token)


class Floor:
    """A context variable, two clocks and one dict on a deque for each call."""

    def __init__(self) -> None:
        self.queue: deque[dict[str, Any]] = deque()

    def tool(self, function: Function) -> Function:
        """Return a traced function or coroutine."""
        name, push = function.__name__, self.queue.append

        @functools.wraps(function)
        def plain(*args: Any, **kwargs: Any) -> Any:
            parent = current.get()
            token = current.set((parent[0], new_id()))
            began = perf_counter_ns()
            try:
                return function(*args, **kwargs)
            finally:
                ended = perf_counter_ns()
                current.reset(token)
                push({"name": name, "in": parent, "args": args, "kwargs": kwargs, "from": began, "to": ended})

        @functools.wraps(function)
        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            parent = current.get()
            token = current.set((parent[0], new_id()))
            began = perf_counter_ns()
            try:
                return await function(*args, **kwargs)
            finally:
                ended = perf_counter_ns()
                current.reset(token)
                push({"name": name, "in": parent, "args": args, "kwargs": kwargs, "from": began, "to": ended})

        return coroutine if inspect.iscoroutinefunction(function) else plain


class ExportingFloor:
    """Two events for each call, their values encoded at once; a thread makes batches of them and posts these."""

    def __init__(self, sink: str) -> None:
        self.queue: deque[tuple[Any, ...]] = deque()
        self.wake = threading.Event()
        self.idle = threading.Condition()
        self.connection = http.client.HTTPConnection(sink.removeprefix("http://"))
        threading.Thread(target=self.export, daemon=True).start()

    def tool(self, function: Function) -> Function:
        """Return a traced function or coroutine."""
        name, names = function.__name__, inspect.getfullargspec(function).args
        queue, push, wake = self.queue, self.queue.append, self.wake
        encode = json.JSONEncoder(separators=(",", ":"), default=repr).encode

        @functools.wraps(function)
        def plain(*args: Any, **kwargs: Any) -> Any:
            trace, parent = current.get()
            span = new_id()
            token = current.set((trace, span))
            arguments = dict(zip(names, args, strict=False), **kwargs)
            push(("tool_call_request", name, trace, span, parent, time_ns(), 0, encode(arguments)))
            began = perf_counter_ns()
            try:
                result = function(*args, **kwargs)
                took = perf_counter_ns() - began
                push(("tool_call_response", name, trace, span, parent, time_ns(), took, encode(result)))
                if len(queue) == BATCH:
                    wake.set()
                return result
            finally:
                current.reset(token)

        @functools.wraps(function)
        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            trace, parent = current.get()
            span = new_id()
            token = current.set((trace, span))
            arguments = dict(zip(names, args, strict=False), **kwargs)
            push(("tool_call_request", name, trace, span, parent, time_ns(), 0, encode(arguments)))
            began = perf_counter_ns()
            try:
                result = await function(*args, **kwargs)
                took = perf_counter_ns() - began
                push(("tool_call_response", name, trace, span, parent, time_ns(), took, encode(result)))
                if len(queue) == BATCH:
                    wake.set()
                return result
            finally:
                current.reset(token)

        return coroutine if inspect.iscoroutinefunction(function) else plain

    def export(self) -> None:
        """Post what is on the deque, whenever woken."""
        event = (
            '{"type":"%s","tool":"%s","trace":"%x","span":"%x","parent":"%x","at":%d,"took":%d,"value":%s}'
        )
        while True:
            self.wake.wait(0.2)
            self.wake.clear()
            while self.queue:
                batch = [event % self.queue.popleft() for _ in range(min(BATCH, len(self.queue)))]
                self.connection.request("POST", "/floor", f"[{','.join(batch)}]".encode())
                self.connection.getresponse().read()
            with self.idle:
                self.idle.notify_all()

    def flush(self) -> None:
        """Wait until all is sent: the first time around, the thread may have looked at the deque too early."""
        for _ in range(2):
            with self.idle:
                self.wake.set()
                self.idle.wait()
