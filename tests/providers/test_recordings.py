"""The replay of recorded exchanges, run on recordings of the test's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from programs import ROOT, start

yaml = pytest.importorskip("yaml", reason="The replay needs PyYAML.")
pytest.importorskip("openai", reason="The replay needs OpenAI's package.")
pytest.importorskip("anthropic", reason="The replay needs Anthropic's package.")

ASKED = {"model": "m-1", "messages": [{"role": "user", "content": "Charge me."}], "max_tokens": 9}
CALL = {"id": "c1", "type": "function", "function": {"name": "charge", "arguments": '{"euros": 3}'}}
ANSWER = {
    "id": "a1",
    "object": "chat.completion",
    "created": 1,
    "model": "m-1-0401",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "tool_calls": [CALL]}, "finish_reason": "tool_calls"}
    ],
    "usage": {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13},
}
STARTED: dict[str, Any] = {
    "id": "a2",
    "type": "message",
    "role": "assistant",
    "model": "m-2",
    "content": [],
    "stop_reason": None,
}
EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {**STARTED, "usage": {"input_tokens": 7, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Charged"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "."}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}},
    {"type": "message_stop"},
]
STREAM = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in EVENTS)


def keep(path: Path, uri: str, asked: Any, media_type: str, **answer: Any) -> None:
    """Write a cassette with one exchange."""
    request = {"method": "POST", "uri": uri, "body": json.dumps(asked), "headers": {}}
    response = {"status": {"code": 200, "message": "OK"}, "headers": {"Content-Type": [media_type]}, **answer}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"interactions": [{"request": request, "response": response}]}), "utf-8")


def replay(folder: Path, home: Path) -> tuple[int, str]:
    """Run the replay, and return its exit code and what it printed."""
    with start("-m", "providers.recordings", folder, home=home, cwd=ROOT / "tests") as program:
        printed, errors = program.communicate()
    assert errors == ""
    return program.returncode, printed


def test_a_whole_answer_and_a_stream_are_counted_by_seller(tmp_path: Path) -> None:
    """Both callers get the same, and the records agree with the recordings."""
    folder = tmp_path / "recordings"
    whole, streamed = (
        "https://api.groq.com/openai/v1/chat/completions",
        "https://api.anthropic.com/v1/messages",
    )
    keep(folder / "whole.yaml", whole, ASKED, "application/json", parsed_body=ANSWER)
    keep(
        folder / "deep" / "stream.yaml",
        streamed,
        ASKED | {"stream": True},
        "text/event-stream",
        body={"string": STREAM},
    )

    assert replay(folder, tmp_path / "home") == (
        0,
        "| seller | exchanges | caller the same | record agrees |\n"
        "|---|---|---|---|\n"
        "| api.anthropic.com | 1 | 1 | 1 |\n"
        "| api.groq.com | 1 | 1 | 1 |\n",
    )


def test_a_record_that_disagrees_is_told(tmp_path: Path) -> None:
    """The recorded counts exceed what a server can store, so the record leaves one out."""
    folder = tmp_path / "recordings"
    usage = {"prompt_tokens": 10, "completion_tokens": 10**30, "total_tokens": 10**30 + 10}
    url = "https://llm.example.com/v1/chat/completions"
    keep(folder / "one.yaml", url, ASKED, "application/json", parsed_body={**ANSWER, "usage": usage})

    code, printed = replay(folder, tmp_path / "home")

    assert code == 1
    assert "| llm.example.com | 1 | 1 | 0 |" in printed
    assert f"- one.yaml[0]: completion recorded as None, told as {10**30}\n" in printed


def test_thoughts_and_tools_of_the_provider_are_compared(tmp_path: Path) -> None:
    """In every form: by OpenAI's responses and Anthropic's messages, and beside the text of a chat."""
    folder = tmp_path / "recordings"
    search = {"query": "fees", "sources": [{"url": "https://a.example"}]}
    output: list[dict[str, Any]] = [
        {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "First look."}]},
        {"type": "web_search_call", "id": "w", "status": "completed", "action": {"type": "search", **search}},
        {
            "type": "tool_search_call",
            "id": "s",
            "call_id": None,
            "execution": "server",
            "arguments": {"paths": ["a"]},
        },
        {
            "type": "tool_search_output",
            "id": "o",
            "call_id": None,
            "execution": "server",
            "tools": [{"name": "a"}],
        },
    ]
    blocks: list[dict[str, Any]] = [
        {"type": "thinking", "thinking": "First look.", "signature": "s"},
        {"type": "server_tool_use", "id": "t", "name": "web_search", "input": {"query": "fees"}},
        {"type": "web_search_tool_result", "tool_use_id": "t", "content": [{"url": "https://a.example"}]},
    ]
    ran = {"index": 0, "type": "search", "arguments": '{"query": "fees"}', "output": "3 %"}
    message = {"role": "assistant", "content": "3 %", "reasoning": "First look.", "executed_tools": [ran]}
    counts: dict[str, Any] = {"input_tokens": 1, "output_tokens": 2}
    response: dict[str, Any] = {
        "id": "a",
        "object": "response",
        "model": "m",
        "status": "completed",
        "output": output,
    }
    chat = {**ANSWER, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    for path, answer in {
        "responses": {**response, "usage": {**counts, "total_tokens": 3}},
        "messages": {**STARTED, "content": blocks, "usage": counts},
        "chat/completions": chat,
    }.items():
        url = f"https://llm.example.com/v1/{path}"
        keep(folder / path / "one.yaml", url, ASKED, "application/json", parsed_body=answer)

    code, printed = replay(folder, tmp_path / "home")

    assert (code, printed.splitlines()[-1]) == (0, "| llm.example.com | 3 | 3 | 3 |")


def test_a_folder_without_model_calls_is_no_success(tmp_path: Path) -> None:
    """A path that is wrong must not look like a replay without differences."""
    folder = tmp_path / "recordings"
    keep(folder / "page.yaml", "https://example.com/page", {}, "text/html", body={"string": "<html>"})

    assert replay(folder, tmp_path / "home")[0] == 2
