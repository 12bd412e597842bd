"""Limits of a trace and clients of providers: the request that is refused does not leave."""

from __future__ import annotations

from typing import Any

import pytest
from collector import Collector
from hybrid import KINDS, ask, connected
from packages import client
from provider import Provider

from whyops_trace import AgentRunaway, WhyOps, trace
from whyops_trace.exceptions import AgentStop

pytestmark = [pytest.mark.anyio, pytest.mark.asyncio_only]


@KINDS
async def test_a_request_beyond_a_limit_does_not_leave(provider: Provider, kind: Any) -> None:
    """It is not tried again, and the client is good for other requests."""
    sdk = WhyOps()
    async with client(kind, provider) as made:
        made = sdk.openai(made) if kind.__module__.startswith("openai") else sdk.anthropic(made)
        with pytest.raises(AgentRunaway, match="34 of 30 tokens are used"), trace("t", max_tokens=30):
            for _ in range(5):
                await ask(made)
        count = len(provider.requests)
        await ask(made)

    assert (count, len(provider.requests)) == (2, 3)


@KINDS
async def test_a_request_through_the_proxy_is_counted(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """By what its answer says; no request beyond the limit goes to the proxy."""
    async with connected(sdk, kind, provider, fallback=True) as made:
        with pytest.raises(AgentRunaway, match="34 of 30 tokens are used"), sdk.trace("t", max_tokens=30):
            for _ in range(5):
                await ask(made)

    assert len(collector.proxied) == 2
    assert len(provider.requests) == 2


@KINDS
async def test_a_request_that_names_a_trace_leaves_the_caller_where_it_was(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """The limits of the trace that it names hold; the code around it goes on in its own trace."""
    async with connected(sdk, kind, provider) as made:
        with pytest.raises(AgentRunaway), sdk.trace("elsewhere", max_steps=1):
            with sdk.trace("here") as here:
                for _ in range(2):
                    try:
                        await ask(made, extra_headers={"X-Trace-ID": "elsewhere"})
                    except AgentStop:
                        here.user_message_sync([{"role": "user", "content": "Still here."}])
                        raise

    assert len(collector.proxied) == 1
