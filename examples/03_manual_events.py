"""Every event by hand, for code that decorators do not fit. Then: whyops-trace show chat-1."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from whyops_trace import ToolCallItem, WhyOps


def main() -> None:
    """Record a turn of a conversation, as if it had been read from a log."""
    sdk = WhyOps(agent_name="log-reader", tracing="local")
    trace = sdk.trace("chat-1", metadata={"channel": "web"})

    asked = trace.user_message_sync(
        [{"role": "user", "content": "Is item 7 in stock?"}],
        metadata={"systemPrompt": "You know the stock.", "params": {"temperature": 0}},
        timestamp=datetime.now(UTC) - timedelta(seconds=2),
        external_user_id="user-7",
    )
    trace.llm_thinking_sync("I have to look it up.", signature="sig-1", parent_step_id=asked)

    trace.embedding_request_sync(["item 7"])
    trace.embedding_response_sync("embed-1", "example", 1, 384, total_tokens=3, latency_ms=12)

    calls: list[ToolCallItem] = [{"id": "call_1", "function": {"name": "stock", "arguments": '{"item": 7}'}}]
    trace.llm_response_sync(
        "example-1",
        "example",
        tool_calls=calls,
        finish_reason="tool_calls",
        usage={"promptTokens": 40, "completionTokens": 9, "totalTokens": 49},
        latency_ms=310,
    )

    # What the request returns pairs it with its response, and knows the step it took.
    span_id = trace.tool_call_request_sync("stock", [{"name": "stock", "arguments": {"item": 7}}])
    trace.error_sync("the first warehouse did not answer", status=503, parent_step_id=span_id.step_id)
    trace.tool_call_response_sync(
        "stock", span_id, [{"name": "stock", "arguments": {"item": 7}}], {"count": 3}, latency_ms=48
    )

    trace.tool_result_sync("stock", {"count": 3})
    trace.llm_response_sync("example-1", "example", "Yes: three of them.", idempotency_key="turn-1-answer")
    print(sdk.close_sync())


if __name__ == "__main__":
    main()
