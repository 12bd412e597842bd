"""Clients and servers of MCP run for real, in one process and in two; their calls of tools make traces."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from integrations import shown
from integrations.chat import WHY, look
from programs import environment, stored

from whyops_trace import WhyOps, step
from whyops_trace._recording.places import Place
from whyops_trace.integrations import mcp

real: Any = pytest.importorskip("mcp", reason=WHY)
MCPServer: Any = pytest.importorskip("mcp.server.mcpserver", reason=WHY).MCPServer

#: A place in the trace of a stranger.
STRANGE = Place("theirs", "token-1", 7, 8, 1, 1, "mallory", "theirs", False)
#: What is no place.
NO_PLACES: list[Any] = ["", "x", 7, [], {}, "1.", "1.W10", "2.W10", "1." + "A" * 8_000]
NO_PARENTS: list[Any] = [{"traceparent": told} for told in ("", 7, "0" * 55, f"00-{'0' * 32}-{'1' * 16}-01")]
#: A server in a process of its own.
SERVER = '''
from mcp.server.mcpserver import MCPServer
from whyops_trace import WhyOps, traced_tool
from whyops_trace.integrations import mcp

sdk = WhyOps(agent_name="parcels")
server = MCPServer("parcels", middleware=[mcp.Middleware(link={link})])

@traced_tool
def look(place):
    return place

@server.tool()
def track(parcel: int) -> str:
    """Tell where a parcel is."""
    return look(f"Bonn {{parcel}}")

server.run()
sdk.close_sync()
'''


def serve(*middleware: Any) -> Any:
    """Return a server with a tool that fails at times."""
    server = MCPServer("calc", middleware=list(middleware))

    @server.tool()
    async def add(a: int, b: int = 2) -> int:
        """Add two numbers."""
        look(f"{a + b}")
        if a == 13:
            raise ValueError("unlucky")
        return a + b

    @server.tool()
    async def draw() -> list[Any]:
        """Return more than a text."""
        return ["a", "b"]

    return server


def ask(server: Any, use: Callable[[Any], Awaitable[Any]]) -> Any:
    """Do something with a client of a server."""

    async def main() -> Any:
        async with real.Client(server) as client:
            return await use(client)

    return asyncio.run(main())


def parcels(home: Path, *, link: bool = True) -> Any:
    """Return how to start a server in a process of its own, whose traces are in the same home."""
    return real.StdioServerParameters(
        command=sys.executable, args=["-c", SERVER.format(link=link)], env=environment(home)
    )


def find(sdk: WhyOps) -> Callable[[Any], Awaitable[Any]]:
    """Return what a client of that server does, in a trace."""

    async def use(session: Any) -> None:
        with sdk.trace("parcel-7"), step("find"):
            await session.call_tool("track", {"parcel": 7})

    return use


def test_a_servers_calls_are_recorded_with_what_they_run(client: WhyOps, home: Path) -> None:
    """Each is a trace of its own, if its client tells no other; a result that is an error is a failure."""
    server = serve(mcp.Middleware(client))

    async def use(session: Any) -> None:
        await session.call_tool("add", {"a": 1})
        await session.call_tool("add", {"a": 13})
        await session.call_tool("draw")
        await session.list_tools()

    ask(server, use)
    client.close_sync()

    assert shown.lines(home) == [
        "add(a=1) -> 3",
        '  look(place="3") -> "3"',
        'add(a=13) -> {"isError": true, "content": [{"text": "Error executing tool add", "type": "text"}]}',
        '  look(place="15") -> "15"',
        'draw() -> ["a", "b"]',
    ]
    assert [tree.said_failed for tree in shown.trees(home)] == [0, 1, 0]


def test_a_call_is_inside_that_of_its_client(client: WhyOps, home: Path) -> None:
    """Both have arguments and result; calls at the same time keep apart, and what follows is outside."""
    server = serve(mcp.Middleware(client))

    async def use(session: Any) -> None:
        with client.trace("sum"), step("all"):
            await asyncio.gather(*(session.call_tool("add", {"a": n}) for n in (1, 3)))
            look("after")
        await session.call_tool("add", {"a": 5})

    with mcp.attach(client):
        ask(server, use)
    client.close_sync()

    assert shown.lines(home) == [
        "all",
        "  add(a=1) -> 3",
        "    serve add",
        '      look(place="3") -> "3"',
        "  add(a=3) -> 5",
        "    serve add",
        '      look(place="5") -> "5"',
        '  look(place="after") -> "after"',
        "add(a=5) -> 7",
        "  serve add",
        '    look(place="7") -> "7"',
    ]


def test_a_call_is_inside_that_of_a_client_in_another_process(client: WhyOps, home: Path) -> None:
    """Client and server, which are two agents, talk over pipes and make one trace."""
    with mcp.attach(client):
        ask(parcels(home), find(client))
    client.close_sync()

    (tree,) = shown.trees(home)
    assert tree.trace_id == "parcel-7"
    assert shown.lines(home) == [
        "find",
        '  track(parcel=7) -> "Bonn 7"',
        "    serve track",
        '      look(place="Bonn 7") -> "Bonn 7"',
    ]


@pytest.mark.parametrize("ends", ["client", "server"])
def test_either_end_can_keep_traces_apart(client: WhyOps, home: Path, ends: str) -> None:
    """A client that tells nothing, or a server that does not listen."""
    with mcp.attach(client, link=ends != "client"):
        ask(parcels(home, link=ends != "server"), find(client))
    client.close_sync()

    ours, theirs = sorted(shown.trees(home), key=lambda tree: tree.trace_id != "parcel-7")
    assert len(theirs.trace_id) == 32
    assert [line for tree in (ours, theirs) for line in shown.lines_of(tree)] == [
        "find",
        '  track(parcel=7) -> "Bonn 7"',
        'track(parcel=7) -> "Bonn 7"',
        '  look(place="Bonn 7") -> "Bonn 7"',
    ]


@pytest.mark.parametrize("meta", [{"com.whyops/place": told} for told in NO_PLACES] + NO_PARENTS)
def test_what_cannot_be_a_place_is_ignored(client: WhyOps, home: Path, meta: dict[str, Any]) -> None:
    """The call is a trace of its own, as without it."""
    ask(serve(mcp.Middleware(client)), lambda session: session.call_tool("add", {"a": 1}, meta=meta))
    client.close_sync()

    (tree,) = shown.trees(home)
    assert len(tree.trace_id) == 32
    assert shown.lines(home) == ["add(a=1) -> 3", '  look(place="3") -> "3"']


def test_a_strangers_place_writes_to_its_own_trace_only(client: WhyOps, home: Path) -> None:
    """It names no user, does not turn recording off, and the trace that is open there goes on."""
    server = serve(mcp.Middleware(client))

    async def use(session: Any) -> None:
        with client.trace("ours"):
            look("before")
            await session.call_tool("add", {"a": 1}, meta={"com.whyops/place": STRANGE.text()})
            look("after")

    ask(server, use)
    client.close_sync()

    theirs, ours = shown.trees(home)
    assert [tree.trace_id for tree in (theirs, ours)] == ["theirs", "ours"]
    assert shown.lines(home) == [
        "serve add",
        '  look(place="3") -> "3"',
        'look(place="before") -> "before"',
        'look(place="after") -> "after"',
    ]
    assert {event.get("externalUserId") for event in stored(home, "theirs")} == {None}


def test_a_place_does_not_turn_recording_on(home: Path) -> None:
    """A server that keeps a share of the traces decides by the id that it is told."""
    with WhyOps(agent_name="shop", home=home, sample_rate=0.0) as sdk:
        meta = {"com.whyops/place": STRANGE._replace(on=True).text()}
        ask(serve(mcp.Middleware(sdk)), lambda session: session.call_tool("draw", meta=meta))

    assert shown.trees(home) == []


def test_the_trace_of_opentelemetry_is_gone_on_with(client: WhyOps, home: Path) -> None:
    """A client of another kind tells it; its calls are together."""
    meta = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}

    async def use(session: Any) -> None:
        await session.call_tool("add", {"a": 1}, meta=meta)
        await session.call_tool("add", {"a": 3}, meta=meta)

    ask(serve(mcp.Middleware(client)), use)
    client.close_sync()

    (tree,) = shown.trees(home)
    assert tree.trace_id == "ab" * 16
    assert shown.lines(home) == [
        "add(a=1) -> 3",
        '  look(place="3") -> "3"',
        "add(a=3) -> 5",
        '  look(place="5") -> "5"',
    ]


def test_a_low_level_server_tells_what_its_handler_raises(client: WhyOps, home: Path) -> None:
    """Client and server both record the failure, and the client gets the exception that it always gets."""
    server_of: Any = pytest.importorskip("mcp.server", reason=WHY).Server

    async def fail(ctx: Any, params: Any) -> Any:
        raise real.MCPError(code=-32000, message="closed today")

    server = server_of("shop", on_call_tool=fail)
    server.middleware.append(mcp.Middleware(client))

    async def use(session: Any) -> None:
        with client.trace("shop"), pytest.raises(real.MCPError, match="closed today"):
            await session.call_tool("buy", {"what": "tea"})

    with mcp.attach(client):
        ask(server, use)
    client.close_sync()

    assert shown.lines(home) == [
        'buy(what="tea") -> mcp.shared.exceptions.MCPError: closed today error',
        "  serve buy error",
    ]


def test_a_call_that_is_cancelled_is_no_failure(client: WhyOps, home: Path) -> None:
    """It ends at both sides."""
    server, started = serve(mcp.Middleware(client)), asyncio.Event()

    @server.tool()
    async def wait() -> None:
        """Wait for ever."""
        started.set()
        await asyncio.Event().wait()

    async def use(session: Any) -> None:
        with client.trace("wait"):
            call = asyncio.ensure_future(session.call_tool("wait"))
            await started.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    with mcp.attach(client):
        ask(server, use)
    client.close_sync()

    assert shown.lines(home) == ["wait() ->  cancelled", "  serve wait cancelled"]


def test_detaching_leaves_the_sessions_as_they_were(client: WhyOps, home: Path) -> None:
    """Of several attachments the last one that goes takes all away; one patched on top by others stays quiet."""
    session, plain = real.ClientSession, real.ClientSession.call_tool
    first, second = mcp.attach(client), mcp.attach(client)
    first.detach()
    assert session.call_tool is not plain
    second.detach()
    assert session.call_tool is plain

    attachment = mcp.attach(client)
    ours = session.call_tool
    session.call_tool = lambda *args, **options: ours(*args, **options)
    try:
        attachment.detach()
        with client.trace("quiet"):
            ask(serve(), lambda made: made.call_tool("add", {"a": 1}))
        with mcp.attach(client), client.trace("once"):
            ask(serve(), lambda made: made.call_tool("add", {"a": 1}))
    finally:
        session.call_tool = ours
        mcp.attach(client).detach()
    client.close_sync()

    assert session.call_tool is plain
    assert shown.lines(home) == [
        'look(place="3") -> "3"',
        "add(a=1) -> 3",
        '  look(place="3") -> "3"',
    ]


@pytest.mark.parametrize("tracing", ["on", "off"])
def test_a_server_is_told_the_place_beside_what_the_caller_tells(
    home: Path, tracing: Literal["on", "off"]
) -> None:
    """A trace that is not recorded is told to nobody."""
    seen: list[dict[str, Any]] = []

    async def spy(ctx: Any, call_next: Any) -> Any:
        if ctx.method == "tools/call":
            seen.append(ctx.params["_meta"])
        return await call_next(ctx)

    async def use(session: Any) -> None:
        with sdk.trace("ab" * 16, external_user_id="ann"):
            await session.call_tool("add", {"a": 1}, meta={"mine": 1})

    with WhyOps(agent_name="shop", home=home, tracing=tracing) as sdk, mcp.attach(sdk):
        ask(serve(spy), use)

    (meta,) = seen
    told = {name: value for name, value in meta.items() if not name.startswith("io.")}
    assert told.pop("mine") == 1
    if tracing == "off":
        assert told == {}
        return
    assert sorted(told) == ["com.whyops/place", "traceparent"]
    assert told["traceparent"].startswith(f"00-{'ab' * 16}-")
    place = Place.read(told["com.whyops/place"])
    assert (place.trace, place.user) == ("ab" * 16, "")
