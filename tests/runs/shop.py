"""
The run that every framework makes: a clerk looks two things up at once, fails to pay back, asks a courier, and answers.

The model is scripted, the tools are these functions, and everything else is the framework.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from provider import Provider
from replies import Reply, ToolCall, Usage
from runs.golden import Golden
from runs.told import Told
from wire import Answer, Request, Server

MODEL = "gpt-4o-mini"
CLERK = "You are a clerk and know parcels."
COURIER = "You are a courier and know the roads."
QUESTION = "Where is parcel 7, how heavy is it, and when does it come? I want my money back."
ASK = "When on Friday?"
TIMES = "Between ten and twelve."
ANSWER = "Parcel 7 is in Bonn, has 4 kg, and comes on Friday. I cannot pay you back."


def find(parcel: int) -> dict[str, Any]:
    """Tell where a parcel is.

    Args:
        parcel: The number of the parcel.
    """
    return {"parcel": parcel, "city": "Bonn"}


def weigh(parcel: int) -> str:
    """Tell how heavy a parcel is.

    Args:
        parcel: The number of the parcel.
    """
    return f"parcel {parcel} has 4 kg"


def refund(parcel: int, reason: str) -> str:
    """Pay a parcel back.

    Args:
        parcel: The number of the parcel.
        reason: Why.
    """
    raise ValueError(f"parcel {parcel} was never paid")


def hours(day: str) -> str:
    """Tell the hours of a day.

    Args:
        day: The day.
    """
    return f"{day}: 10 to 12"


def script(delegate: str = "ask_courier", arguments: dict[str, Any] | None = None) -> list[Reply]:
    """
    Return what the model says, turn by turn.

    Args:
        delegate: The tool by which the clerk asks the courier.
        arguments: The arguments of that tool.
    """
    return [
        Reply(
            tool_calls=(
                ToolCall("find", {"parcel": 7}, "call_find"),
                ToolCall("weigh", {"parcel": 7}, "call_weigh"),
            ),
            usage=Usage(fresh=101, output=11),
        ),
        Reply(
            tool_calls=(ToolCall("refund", {"parcel": 7, "reason": "late"}, "call_refund"),),
            usage=Usage(fresh=52, cached=64, output=12),
        ),
        Reply(
            tool_calls=(ToolCall(delegate, arguments or {"question": ASK}, "call_courier"),),
            usage=Usage(fresh=33, cached=128, output=13),
        ),
        Reply(
            tool_calls=(ToolCall("hours", {"day": "Friday"}, "call_hours"),), usage=Usage(fresh=44, output=14)
        ),
        Reply(TIMES, usage=Usage(fresh=55, output=15)),
        Reply(ANSWER, usage=Usage(fresh=26, cached=192, output=16)),
    ]


def play(
    run: Callable[[Provider], Told],
    replies: list[Reply],
    *,
    packages: Sequence[str],
    prepare: Callable[[], object] = lambda: None,
) -> None:
    """
    Run an agent in this process, and print what the framework's objects tell of it.

    Its spans are taken in the way that the command names: ``attached`` in this process, ``wire`` by an SDK in it that
    sends them, ``own`` by a process of the framework that does. With ``file`` and ``caught`` they are written to the
    file that comes next in the command.

    Args:
        run: Runs the agent, and tells of it.
        replies: What the model says.
        packages: Names of the packages that the run is of.
        prepare: Prepares the framework to make spans, once there is a provider of them.
    """
    way, *rest = sys.argv[1:]
    golden = Golden()
    with Provider() as provider, _WAYS[way](golden):
        provider.reply(*replies)
        os.environ.update(provider.environment)
        prepare()
        told = run(provider)
    print(told.to_json())
    if rest:
        golden.write(Path(rest[0]), told, packages)


@contextlib.contextmanager
def _by_itself(golden: Golden) -> Iterator[None]:
    yield


@contextlib.contextmanager
def _attached(golden: Golden) -> Iterator[None]:
    from whyops_trace import otel

    with otel.attach():
        yield


@contextlib.contextmanager
def by_wire(golden: Golden | None = None) -> Iterator[None]:
    """Send the spans of this process to where the environment says."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    with _exported(OTLPSpanExporter()):
        yield


@contextlib.contextmanager
def _to_file(golden: Golden) -> Iterator[None]:
    with _caught(golden), _exported(golden):
        yield


@contextlib.contextmanager
def _caught(golden: Golden) -> Iterator[None]:
    """Keep what other processes send to where the environment says."""
    with Receiver(golden) as receiver:
        os.environ |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.root,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
        }
        yield


@contextlib.contextmanager
def _exported(exporter: Any) -> Iterator[None]:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()


class Receiver(Server):
    """
    Takes what is sent in OTLP/JSON; use it in a with-block.

    Args:
        golden: Where it is kept.
    """

    def __init__(self, golden: Golden) -> None:
        super().__init__()
        self._golden = golden

    def exchange(self, connection: socket.socket, request: Request) -> bool:
        """Take one request."""
        self._golden.keep(request.json)
        return Answer(200, {}).send(connection) and request.lasting


_WAYS = {"attached": _attached, "own": _by_itself, "wire": by_wire, "caught": _caught, "file": _to_file}
