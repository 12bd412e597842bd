"""Turns of clients of Amazon Bedrock, whose streams are no server-sent events."""

from __future__ import annotations

from typing import Any

import pytest
from bedrock import frame, stream
from packages import CLAUDE, anthropic, entered, got, items
from recorded import Recorded
from replies import Reply, ToolCall, Usage
from seller import Seller
from traced import trace_with

from whyops_trace import WhyOps

pytestmark = [pytest.mark.anyio, pytest.mark.asyncio_only]

MEDIA_TYPE = "application/vnd.amazon.eventstream"
REPLY = Reply(
    "Hello, how can I help?",
    usage=Usage(fresh=12, output=5),
    tool_calls=(ToolCall("charge", {"amount": 5}, "call_1"),),
)
KINDS = pytest.mark.parametrize("name", ["AnthropicBedrock", "AsyncAnthropicBedrock"])


def client(name: str, seller: Seller) -> Any:
    """Return a traced client of Bedrock that asks the seller."""
    for package in ("boto3", "botocore"):
        pytest.importorskip(package, reason="the session `providers` of nox installs it")
    account = {"aws_access_key": "a", "aws_secret_key": "b", "aws_region": "us-east-1"}
    made = getattr(anthropic, name)(**account, base_url=seller.root, max_retries=0)
    return trace_with(WhyOps(agent_name="shop"), made)


async def test_a_body_in_frames_is_a_turn(events: Recorded) -> None:
    """Also if its reader takes the bytes as they are."""
    with Seller(stream(REPLY), MEDIA_TYPE) as seller:
        made = trace_with(WhyOps(agent_name="shop"), anthropic.Anthropic(api_key="k", base_url=seller.root))
        with made.messages.with_streaming_response.create(**CLAUDE, stream=True) as response:
            assert b"".join(response.iter_bytes()) == seller.body
        made.close()

    check(events)


@KINDS
async def test_a_stream_is_a_turn(events: Recorded, name: str) -> None:
    """The caller gets its events, and the record has the text, the calls and the tokens."""
    with Seller(stream(REPLY), MEDIA_TYPE) as seller:
        made = client(name, seller)
        heard = await items(await got(made.messages.create(**CLAUDE, stream=True)))
        await got(made.close())

    assert [event.type for event in heard][:1] == ["message_start"]
    check(events)


@KINDS
async def test_the_helper_of_streams_works(events: Recorded, name: str) -> None:
    """As with any other client of Anthropic."""
    with Seller(stream(REPLY), MEDIA_TYPE) as seller:
        made = client(name, seller)
        async with entered(made.messages.stream(**CLAUDE)) as answer:
            assert await got(answer.get_final_text()) == REPLY.text
        await got(made.close())

    check(events)


@KINDS
async def test_a_failure_in_a_stream_is_an_error(events: Recorded, name: str) -> None:
    """In the words of the service."""
    told = {":message-type": "exception", ":exception-type": "throttlingException"}
    with Seller(frame({"message": "Too many."}, told), MEDIA_TYPE) as seller:
        made = client(name, seller)
        with pytest.raises((anthropic.APIError, ValueError)):
            await items(await got(made.messages.create(**CLAUDE, stream=True)))
        await got(made.close())

    assert events.records[-1]["eventType"] == "error"
    assert events.records[-1]["content"]["message"] == "Too many."


def check(events: Recorded) -> None:
    """Check that the reply was recorded."""
    answer = next(record for record in events.records if record["eventType"] == "llm_response")
    assert answer["content"]["content"] == REPLY.text
    assert [call["function"]["name"] for call in answer["content"]["toolCalls"]] == ["charge"]
    assert answer["content"]["finishReason"] == "tool_use"
    assert answer["metadata"]["usage"] == {"promptTokens": 12, "completionTokens": 5, "totalTokens": 17}
    assert "timeToFirstTokenMs" in answer["metadata"]
