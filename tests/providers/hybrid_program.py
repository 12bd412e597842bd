"""
A program that takes turns of a conversation through the WhyOps proxy, for tests of their order on the server.

Arguments: the client ("openai" or "anthropic", with "async", "stream" or "stream async" after it), the trace, the first
and the last number of its turns, the tools that each turn calls, and the milliseconds that a tool takes. The turns of
"openai tasks" and "openai threads" are taken all at once, the tools of "openai tools" run beside their turn. It prints
the milliseconds that each request waited for the server. With ``DIE`` in the environment it kills itself after the last
turn.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from whyops_trace import WhyOps, propagate, traced_tool
from whyops_trace.providers import _link

KIND, TRACE = sys.argv[1:3]
FIRST, LAST, TOOLS, TOOL_MS = map(int, sys.argv[3:])
STREAMS = "stream" in KIND
CHAT = {"model": os.environ.get("MODEL", "gpt-4o")}
CLAUDE = {"model": "claude-test", "max_tokens": 9}

waits: list[float] = []
_settle = _link.Proxy.settle


def _timed(self: _link.Proxy, *args: Any) -> None:
    began = time.perf_counter()
    _settle(self, *args)
    waits.append(round((time.perf_counter() - began) * 1000, 1))


_link.Proxy.settle = _timed  # type: ignore[method-assign, assignment]


@traced_tool
def look_up(number: int) -> int:
    """Take some time."""
    time.sleep(TOOL_MS / 1000)
    return number


@traced_tool
async def look_up_later(number: int) -> int:
    """Take some time, in a task."""
    await asyncio.sleep(TOOL_MS / 1000)
    return number


def asked(turn: int) -> dict[str, Any]:
    """A request of a turn, which no other turn makes."""
    model = CHAT if KIND.startswith("openai") else CLAUDE
    return {**model, "stream": STREAMS, "messages": [{"role": "user", "content": f"Question {turn}?"}]}


def converse(sdk: WhyOps) -> None:
    """Take the turns in this thread."""
    with sdk.trace(TRACE), _client(sdk, "") as made:
        create = _create(made)
        for turn in range(FIRST, LAST + 1):
            answer = create(**asked(turn))
            if STREAMS:
                list(answer)
            for tool in range(TOOLS):
                look_up(100 * turn + tool)


def converse_beside(sdk: WhyOps) -> None:
    """Take all turns at once, or each with its tools at once, in threads."""
    with sdk.trace(TRACE), _client(sdk, "") as made, ThreadPoolExecutor() as pool:
        create = propagate(_create(made))

        def take(turn: int) -> None:
            answer = pool.submit(create, **asked(turn))
            if KIND == "openai threads":
                answer.result()
            for tool in range(TOOLS):
                look_up(100 * turn + tool)
            answer.result()

        turns = range(FIRST, LAST + 1)
        if KIND == "openai tools":
            for turn in turns:
                take(turn)
        else:
            threads = [threading.Thread(target=propagate(take), args=(turn,)) for turn in turns]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()


async def converse_tasks(sdk: WhyOps) -> None:
    """Take all turns at once, in tasks."""

    async def take(turn: int) -> None:
        await create(**asked(turn))
        for tool in range(TOOLS):
            await look_up_later(100 * turn + tool)

    async with sdk.trace(TRACE), _client(sdk, "Async") as made:
        create = _create(made)
        await asyncio.gather(*map(take, range(FIRST, LAST + 1)))


async def converse_async(sdk: WhyOps) -> None:
    """Take the turns in an event loop, the tools of a turn all at once."""
    async with sdk.trace(TRACE), _client(sdk, "Async") as made:
        create = _create(made)
        for turn in range(FIRST, LAST + 1):
            answer = await create(**asked(turn))
            if STREAMS:
                async for _ in answer:
                    pass
            await asyncio.gather(*(look_up_later(100 * turn + tool) for tool in range(TOOLS)))


def _client(sdk: WhyOps, prefix: str) -> Any:
    if KIND.startswith("openai"):
        import openai

        return sdk.openai(getattr(openai, f"{prefix}OpenAI")(api_key="sk-test", max_retries=0))
    import anthropic

    return sdk.anthropic(getattr(anthropic, f"{prefix}Anthropic")(api_key="sk-ant-test", max_retries=0))


def _create(made: Any) -> Any:
    return made.chat.completions.create if KIND.startswith("openai") else made.messages.create


if __name__ == "__main__":
    client = WhyOps(agent_metadata={"systemPrompt": "You run the checkout.", "tools": []})
    if KIND.endswith("async"):
        asyncio.run(converse_async(client))
    elif KIND.endswith("tasks"):
        asyncio.run(converse_tasks(client))
    elif KIND.endswith(("threads", "tools")):
        converse_beside(client)
    else:
        converse(client)
    if os.environ.get("DIE"):
        os.kill(os.getpid(), signal.SIGKILL)
    client.close_sync(30)
    print(json.dumps(waits))
