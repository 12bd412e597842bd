"""The proxy of the tests passes on, edits and reports as the real one was seen to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from collector import Collector, check
from packages import (
    ANTHROPIC,
    CHAT,
    CLAUDE,
    LOST,
    OPENAI,
    RESPONSES,
    anthropic,
    client,
    got,
    items,
    method,
    openai,
    told,
)
from provider import Provider
from proxied import END, START, signature, signed
from replies import Cut, Failure, Gate, Redacted, Reply, Thinking, ToolCall, Usage
from wire import Row

KEY = {"Authorization": "Bearer whyops_test"}
AGENT = {"X-Agent-Name": "shop"}
TRACE = {**AGENT, "X-Trace-ID": "t"}
TOKENS = Usage(fresh=20, cached=8, written_5m=60, written_1h=40, output=9)
CHARGE = ToolCall("charge_card", {"amount": 4999}, "call_1")
CALLED = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "charge_card", "arguments": '{"amount":4999}'},
}
MARKED = '{"amount":4999,"_whyops_trace_id":"t"}'
pytestmark = pytest.mark.asyncio_only


@pytest.fixture
def proxy(collector: Collector, provider: Provider) -> Collector:
    """Run the WhyOps proxy in front of them."""
    collector.upstream = provider
    return collector


@pytest.fixture
def http(proxy: Collector) -> Iterator[httpx.Client]:
    """A plain client of the proxy, with its key."""
    with httpx.Client(base_url=f"{proxy.root}/v1", headers=KEY) as http:
        yield http


def kinds(rows: list[Row]) -> list[str]:
    """The type of each row."""
    return [row["eventType"] for row in rows]


def known(row: Row) -> Any:
    """The metadata of a row, without what differs from run to run."""
    return {
        name: value for name, value in row["metadata"].items() if name not in ("idempotencyKey", "latencyMs")
    }


@OPENAI
@pytest.mark.anyio
async def test_a_chat_completion_is_signed_and_marked(
    proxy: Collector, provider: Provider, kind: Any
) -> None:
    """The text ends in characters of no width, the arguments of each call in one more of them."""
    provider.reply(Reply("Sure.", (CHARGE,)), Reply("One.", others=("Two.",)))

    async with client(kind, proxy, default_headers=TRACE) as made:
        message = told(await got(made.chat.completions.create(**CHAT)))["choices"][0]["message"]
        first, second = (await got(made.chat.completions.create(**CHAT, n=2))).choices

    assert message["content"] == "Sure." + signature("t")
    assert message["tool_calls"][0]["function"]["arguments"] == MARKED
    assert (first.message.content, second.message.content) == ("One." + signature("t"), "Two.")


def test_a_signature_carries_a_trace_id() -> None:
    """In eight characters for each of the id, and a frame; what is above U+00FF takes more and is read as others."""
    carried = signature("thread_ä")

    assert signature("A") == "\u200b\u200d\u200c\u200d\u200d\u200d\u200d\u200d\u200c\u200e"
    assert signed(f"Sure.{carried}") == "thread_ä"
    assert signed("Sure.") is None
    assert len(signature("x" * 16)) == 130
    assert [len(signature(each)) - 2 for each in ("a", "ÿ", "Ā", "店", "😀")] == [8, 8, 9, 15, 32]
    assert signed(signature("Ā")) == "\x80\0"
    assert not carried.isprintable() and (carried[0], carried[-1]) == (START, END)


def test_a_chat_with_a_tool_call_is_stored_as_recorded(
    proxy: Collector, provider: Provider, http: httpx.Client
) -> None:
    """Both rows are those of a real server, ids, spans and times aside."""
    provider.call_tool("get_weather", {"city": "Paris"}, usage=Usage(fresh=12, cached=8, output=5))
    tools = [{"type": "function", "function": {"name": "get_weather"}}]
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}], "tools": tools}

    answer = http.post("/chat/completions", json=body, headers=TRACE)
    request, response = proxy.trace("t")
    call: dict[str, Any] = {"id": "call_1", "type": "function", "function": {"name": "get_weather"}}
    call["function"] |= {"arguments": '{"city":"Paris","_whyops_trace_id":"t"}'}
    usage = {"totalTokens": 25, "promptTokens": 20, "cacheReadTokens": 8, "completionTokens": 5}

    assert answer.json()["choices"][0]["message"]["tool_calls"] == [call]
    assert (request["eventType"], request["stepId"], request["parentStepId"]) == ("user_message", 1, None)
    assert request["content"] == "x"
    assert known(request) == {"model": "gpt-4o", "tools": tools, "params": {}, "provider": "openai"}
    assert (response["eventType"], response["stepId"], response["parentStepId"]) == ("llm_response", 2, 1)
    assert response["content"] == {"toolCalls": [call], "finishReason": "tool_calls"}
    assert known(response) == {"model": "gpt-4o", "usage": usage, "provider": "openai"}
    assert "x-trace-id" not in answer.headers
    assert isinstance(response["metadata"]["latencyMs"], int)
    assert response["metadata"]["idempotencyKey"].startswith("hash_")
    assert request["spanId"] != response["spanId"]
    assert request["providerId"] == response["providerId"] is not None


@OPENAI
@pytest.mark.anyio
async def test_a_chat_stream_has_one_chunk_more(proxy: Collector, provider: Provider, kind: Any) -> None:
    """It carries the signature; the chunks before it are the provider's, arguments untouched."""
    provider.reply(Reply("Sure thing.", (CHARGE,), usage=TOKENS))

    async with client(kind, proxy, default_headers=TRACE) as made:
        chunks = await items(await got(made.chat.completions.create(**CHAT, stream=True)))
    *before, last = [told(chunk) for chunk in chunks]
    deltas = [chunk["choices"][0]["delta"] for chunk in before]
    parts = [part for delta in deltas for part in delta.get("tool_calls", ())]

    assert last["id"] == "gen-signature"
    assert last["choices"] == [{"index": 0, "delta": {"content": signature("t")}, "finish_reason": None}]
    assert "".join(part["function"]["arguments"] for part in parts) == CHARGE.json
    assert proxy.trace("t")[1]["content"] == {
        "content": "Sure thing.",
        "toolCalls": [CALLED],
        "finishReason": "tool_calls",
    }
    assert "usage" not in proxy.trace("t")[1]["metadata"]


def test_a_chat_stream_is_framed_anew(proxy: Collector, provider: Provider, http: httpx.Client) -> None:
    """Bare data lines, the signature directly before the end, and headers that name the trace."""
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}

    answer = http.post("/chat/completions", json=body, headers=TRACE)
    frames = answer.text.split("\n\n")

    assert all(frame.startswith("data: ") for frame in frames[:-1])
    assert [json.loads(frame[6:])["id"] for frame in frames[-3:-2]] == ["gen-signature"]
    assert frames[-2:] == ["data: [DONE]", ""]
    assert (answer.headers["x-trace-id"], answer.headers["x-thread-id"]) == ("t", "t")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert proxy.trace("t")[1]["metadata"]["usage"]["totalTokens"] == 17


@OPENAI
@pytest.mark.anyio
async def test_a_response_is_signed_and_marked(proxy: Collector, provider: Provider, kind: Any) -> None:
    """Its first text and the arguments of its calls; what is stored has the mark and not the signature."""
    provider.reply(Reply("Sure.", (CHARGE,), usage=TOKENS))

    async with client(kind, proxy, default_headers=TRACE) as made:
        raw = await got(
            method(made, "responses.with_raw_response.create")(**RESPONSES, instructions="Be kind.")
        )
    message, call = raw.parse().output
    request, response = proxy.trace("t")

    assert (message.content[0].text, call.arguments) == ("Sure." + signature("t"), MARKED)
    assert raw.headers["x-trace-id"] == raw.headers["x-thread-id"] == "t"
    assert (request["eventType"], request["content"]) == ("user_message", "Charge me.")
    assert request["metadata"]["systemPrompt"] == "Be kind."
    assert response["content"] == {
        "content": "Sure.",
        "toolCalls": [CALLED | {"function": {"name": "charge_card", "arguments": MARKED}}],
        "finishReason": "completed",
    }
    assert response["metadata"]["usage"] == {
        "promptTokens": 128,
        "completionTokens": 9,
        "totalTokens": 137,
        "cacheReadTokens": 8,
    }


@pytest.mark.parametrize(
    ("path", "body", "content"),
    [
        ("/responses", RESPONSES, {"content": "Sure.", "toolCalls": [CALLED], "finishReason": "completed"}),
        ("/messages", CLAUDE, {"content": "Sure.", "toolCalls": [CALLED], "finishReason": "tool_use"}),
    ],
)
def test_other_streams_pass_through(
    proxy: Collector, provider: Provider, http: httpx.Client, path: str, body: Any, content: Any
) -> None:
    """Byte for byte as the provider sends them, and are reported."""
    reply = Reply("Sure.", (CHARGE,), usage=TOKENS)
    provider.reply(reply)
    keys = {"Authorization": "Bearer sk-test"}
    if path == "/messages":
        keys = {"x-api-key": "sk-ant-test", "anthropic-version": "2023-06-01"}

    relayed = http.post(path, json={**body, "stream": True}, headers=TRACE)
    with Provider() as another:
        another.reply(reply)
        direct = httpx.post(another.openai_url + path, json={**body, "stream": True}, headers=keys)
    request, response = proxy.trace("t")

    assert relayed.content == direct.content
    assert relayed.headers["x-trace-id"] == "t"
    assert (kinds([request, response]), response["content"]) == (["user_message", "llm_response"], content)
    assert response["metadata"]["usage"]["completionTokens"] == 9


@ANTHROPIC
@pytest.mark.anyio
@pytest.mark.parametrize("streamed", [False, True])
async def test_messages_are_reported_on_one_span_and_their_thinking_on_others(
    proxy: Collector, provider: Provider, kind: Any, streamed: bool
) -> None:
    """Nothing in them is edited; cached tokens are told apart."""
    thoughts = (Thinking("Is it paid for?", "c2ln"), Redacted("cmVk"))
    provider.reply(Reply("Sure.", (CHARGE,), thoughts, usage=TOKENS))

    async with client(kind, proxy, default_headers=TRACE, _strict_response_validation=False) as made:
        answer = await got(made.messages.create(**CLAUDE, system="Be kind.", stream=streamed))
        if streamed:
            await items(answer)
        else:
            assert [block.get("text") for block in told(answer)["content"]] == [None, None, "Sure.", None]
            assert told(answer)["content"][-1]["input"] == {"amount": 4999}
    rows = proxy.trace("t")
    request, response, thinking, redacted = rows

    assert kinds(rows) == ["user_message", "llm_response", "llm_thinking", "llm_thinking"]
    assert (request["content"], request["metadata"]["systemPrompt"]) == ("Charge me.", "Be kind.")
    assert response["content"] == {"content": "Sure.", "finishReason": "tool_use", "toolCalls": [CALLED]}
    assert response["metadata"]["usage"] == {
        "promptTokens": 20,
        "completionTokens": 9,
        "totalTokens": 137,
        "cacheWrite5mTokens": 60,
        "cacheWrite1hTokens": 40,
        "cacheCreationTokens": 100,
        "cacheReadTokens": 8,
    }
    assert thinking["content"] == {"type": "thinking", "thinking": "Is it paid for?", "signature": "c2ln"}
    assert redacted["content"] == {"type": "redacted_thinking", "data": "cmVk"}
    assert len({row["spanId"] for row in rows}) == 3
    assert request["spanId"] == response["spanId"]


def test_a_system_prompt_in_blocks_is_lost_with_its_events(proxy: Collector, http: httpx.Client) -> None:
    """The request succeeds; both its events are dead letters."""
    system = [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]

    answer = http.post("/messages", json={**CLAUDE, "system": system}, headers=TRACE)

    assert answer.json()["content"][0]["text"] == "Hello, how can I help?"
    assert "x-trace-id" not in answer.headers
    assert proxy.stored == []
    assert kinds([letter["event"] for letter in proxy.dead_letters]) == ["user_message", "llm_response"]


@OPENAI
@pytest.mark.anyio
async def test_embeddings_are_reported_by_their_number(proxy: Collector, kind: Any) -> None:
    """Their size is known only of numbers, and their tokens keep the provider's names."""
    asked = {"model": "text-embedding-3-small", "input": ["a", "b"]}

    async with client(kind, proxy, default_headers=TRACE, _strict_response_validation=False) as made:
        await got(made.embeddings.create(**asked, encoding_format="base64"))
        raw = await got(made.embeddings.with_raw_response.create(**asked, encoding_format="float"))
    coded, plain = (row for row in proxy.trace("t") if row["eventType"] == "embedding_response")
    about = {"object": "list", "embeddingCount": 2}

    assert raw.headers["x-trace-id"] == "t"
    assert proxy.trace("t")[0]["content"] == {"input": ["a", "b"]}
    assert coded["content"] == {**about, "encodingFormat": "base64"}
    assert plain["content"] == {**about, "encodingFormat": "float", "firstEmbeddingDimensions": 3}
    assert coded["metadata"]["usage"] == {"prompt_tokens": 12, "total_tokens": 12}


def test_the_trace_is_named_by_headers_or_a_signature(
    proxy: Collector, provider: Provider, http: httpx.Client
) -> None:
    """The first of two headers, then the last signed answer in the history, which goes upstream without it."""
    provider.reply(*[Reply(f"Answer {n}.") for n in range(6)])
    for headers in (TRACE, {**AGENT, "X-Thread-ID": "u"}, {**TRACE, "X-Thread-ID": "v"}, AGENT):
        answer = http.post("/chat/completions", json=CHAT, headers=headers)
    spoken = answer.json()["choices"][0]["message"]["content"]
    made_up = signed(spoken) or ""
    earlier = {"role": "assistant", "content": "Hi." + signature("t")}
    history = [earlier, {"role": "assistant", "content": spoken}, {"role": "user", "content": "And?"}]
    parts = [
        history[0],
        {"role": "assistant", "content": [{"type": "output_text", "text": spoken}]},
        history[2],
    ]
    http.post("/chat/completions", json={**CHAT, "messages": history}, headers=AGENT)
    http.post("/responses", json={**RESPONSES, "input": parts}, headers=AGENT)

    assert list(proxy.traces) == ["t", "u", made_up]
    assert made_up.startswith("thread_") and len(made_up) == 23
    assert len(proxy.trace(made_up)) == 6
    assert provider.requests[-2].json["messages"][1]["content"] == "Answer 3."
    assert START not in provider.requests[-1].body.decode()


def test_nothing_of_the_clients_headers_goes_upstream(
    proxy: Collector, provider: Provider, http: httpx.Client
) -> None:
    """Neither the trace nor the key of WhyOps; the provider gets its own key."""
    sent = {**TRACE, "X-Thread-ID": "t", "X-External-User-Id": "u", "anthropic-beta": "x", "X-Step-Id": "7"}
    for path, body in (("/chat/completions", CHAT), ("/responses", RESPONSES), ("/messages", CLAUDE)):
        http.post(path, json=body, headers=sent)
    names = [{name.lower() for name in request.headers} for request in provider.requests]
    common = {"host", "accept-encoding", "content-length", "content-type", "user-agent"}

    assert names == [common | {"authorization"}] * 2 + [common | {"x-api-key", "anthropic-version"}]
    assert [request.path for request in proxy.proxied] == [request.path for request in provider.requests]
    assert proxy.proxied[0].headers["x-step-id"] == "7"


def test_the_external_user_is_lost_here_and_there(proxy: Collector, http: httpx.Client) -> None:
    """On streamed answers of OpenAI's and on requests of embeddings."""
    headers = {**TRACE, "X-External-User-Id": "user-7"}
    embedding = {"model": "text-embedding-3-small", "input": "a"}
    for path, body in (
        ("/chat/completions", CHAT),
        ("/chat/completions", {**CHAT, "stream": True}),
        ("/messages", {**CLAUDE, "stream": True}),
        ("/embeddings", embedding),
    ):
        http.post(path, json=body, headers={**headers, "X-Trace-ID": path + str(body.get("stream"))})
    users = [[row["sent"].get("externalUserId") for row in trace.rows] for trace in proxy.traces.values()]

    assert users == [["user-7"] * 2, ["user-7", None], ["user-7"] * 2, [None, "user-7"]]


def test_the_slug_of_a_model_is_cut_off(proxy: Collector, provider: Provider, http: httpx.Client) -> None:
    """It picks a provider if it is known, and is reported in any case."""
    with Provider() as other:
        other.say("The other one.")
        proxy.slugs = {"mine": other}
        for model in ("openai/gpt-4o", "mine/org/gpt-4o"):
            http.post(
                "/chat/completions", json={**CHAT, "model": model}, headers={**AGENT, "X-Trace-ID": model}
            )
        models = [request.json["model"] for request in (*provider.requests, *other.requests)]
    names = ("model", "provider", "providerSlug")
    about = [tuple(row["metadata"][name] for name in names) for row in proxy.stored[::2]]

    assert models == ["gpt-4o", "org/gpt-4o"]
    assert about == [("gpt-4o", "openai", "openai"), ("org/gpt-4o", "custom", "mine")]


@pytest.mark.parametrize(
    ("headers", "status", "error"),
    [
        ({"Authorization": "Bearer sk-test", **AGENT}, 401, "Unauthorized: Authentication required"),
        ({}, 400, "Missing required header: X-Agent-Name"),
    ],
)
def test_a_request_needs_a_key_and_an_agent(
    proxy: Collector, provider: Provider, http: httpx.Client, headers: dict[str, str], status: int, error: str
) -> None:
    """Without them nothing goes upstream and nothing is reported."""
    answer = http.post("/chat/completions", json=CHAT, headers=headers)

    assert (answer.status_code, answer.json()) == (status, {"error": error})
    assert (provider.requests, proxy.stored) == ([], [])
    assert len(proxy.proxied) == 1


def test_an_account_needs_a_provider(collector: Collector) -> None:
    """The refusal says so; paths and methods that the proxy does not know are not found."""
    with httpx.Client(base_url=f"{collector.root}/v1", headers={**KEY, **AGENT}) as http:
        refusal = http.post("/chat/completions", json=CHAT)
        unknown = [http.post("/models").status_code, http.get("/responses").status_code]
        broken = http.post("/chat/completions", content=b"{")

    assert refusal.status_code == 400
    assert refusal.json()["error"].startswith("No provider configured for this API key.")
    assert (unknown, broken.status_code) == ([404, 404], 500)


def test_too_many_requests_are_refused(proxy: Collector, provider: Provider, http: httpx.Client) -> None:
    """In the words of the real proxy, with its headers and without Retry-After; making an agent counts too."""
    proxy.rate_limit = 2
    http.post("/agents/init", json={})
    http.get("/models")

    refused = http.post("/chat/completions", json=CHAT, headers=TRACE)
    other = httpx.get(f"{proxy.root}/api/events", headers=KEY)

    assert refused.status_code == 429
    assert refused.json()["error"] == "Rate limit exceeded"
    assert refused.json()["message"] == "Too many requests. Limit: 2 requests per 60 seconds"
    assert refused.json()["retryAfter"] == refused.headers["x-ratelimit-reset"]
    assert (refused.headers["x-ratelimit-limit"], refused.headers["x-ratelimit-remaining"]) == ("2", "0")
    assert "retry-after" not in refused.headers
    assert other.status_code == 200
    assert [request.path for request in provider.requests] == ["/v1/models"]


@pytest.mark.anyio
async def test_models_come_from_the_provider(proxy: Collector, provider: Provider) -> None:
    """They need a key and no agent."""
    async with client(openai.OpenAI, proxy) as made, client(openai.OpenAI, provider) as direct:
        assert [model.id for model in made.models.list()] == [model.id for model in direct.models.list()]


@pytest.mark.anyio
@pytest.mark.parametrize("streamed", [False, True])
async def test_errors_pass_and_are_reported(proxy: Collector, provider: Provider, streamed: bool) -> None:
    """With their status and body, and without their headers; streams report the body as a text."""
    for _ in range(2):
        provider.fail(429, message="Slow down.", headers={"retry-after": "7"})

    async with client(openai.OpenAI, proxy, default_headers=TRACE) as theirs:
        with pytest.raises(openai.RateLimitError, match=r"Slow down\.") as first:
            theirs.chat.completions.create(**CHAT, stream=streamed)
    async with client(anthropic.Anthropic, proxy, default_headers={**AGENT, "X-Trace-ID": "u"}) as theirs:
        with pytest.raises(anthropic.RateLimitError, match=r"Slow down\."):
            theirs.messages.create(**CLAUDE, stream=streamed)
    _, error = proxy.trace("t")
    _, other = proxy.trace("u")

    assert "retry-after" not in first.value.response.headers
    assert kinds([error, other]) == ["error", "error"]
    if streamed:
        assert (error["content"]["status"], json.loads(error["content"]["error"])["error"]["message"]) == (
            429,
            "Slow down.",
        )
    else:
        assert error["content"]["error"]["message"] == other["content"]["error"]["message"] == "Slow down."
    assert (known(error), known(other)) == ({}, {"provider": "anthropic", "model": "claude-test"})


def test_a_provider_that_is_down_is_a_500(proxy: Collector, provider: Provider, http: httpx.Client) -> None:
    """The event says what the client is told."""
    provider.stop()

    answer = http.post("/chat/completions", json=CHAT, headers=TRACE)

    assert (answer.status_code, answer.json()["error"]) == (500, "[Errno 111] Connection refused")
    assert proxy.trace("t")[1]["content"] == {"message": "[Errno 111] Connection refused"}


def test_the_request_is_reported_before_it_goes_upstream(
    proxy: Collector, provider: Provider, http: httpx.Client
) -> None:
    """While the provider thinks, it is there; as a tool's result where the last message is one."""
    seen = []
    provider.script = lambda request: seen.append(kinds(proxy.stored))
    system = {"role": "system", "content": "Be kind."}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "Paid."}
    http.post(
        "/chat/completions", json={**CHAT, "messages": [*CHAT["messages"], result, system]}, headers=TRACE
    )

    assert seen == [["tool_result"]]
    assert proxy.trace("t")[0]["content"] == [*CHAT["messages"], result, system]
    assert proxy.trace("t")[0]["metadata"]["systemPrompt"] == "Be kind."


def test_only_the_users_texts_of_a_history_are_stored(proxy: Collector, http: httpx.Client) -> None:
    """All of them in each request's event, joined by newlines; Anthropic's with what the model said between."""
    history = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": [{"type": "text", "text": "Two?"}]},
    ]
    http.post("/chat/completions", json={**CHAT, "messages": history}, headers=TRACE)
    http.post("/messages", json={**CLAUDE, "messages": history}, headers={**AGENT, "X-Trace-ID": "u"})

    assert proxy.trace("t")[0]["content"] == "One?\nTwo?"
    assert proxy.trace("u")[0]["content"] == "One?\nYes."
    assert proxy.trace("t")[0]["sent"]["content"] == history


def test_identical_answers_are_dropped(proxy: Collector, http: httpx.Client) -> None:
    """They have no key but their content: three calls, one event of each kind."""
    for _ in range(3):
        http.post("/chat/completions", json=CHAT, headers=TRACE)

    assert kinds(proxy.trace("t")) == ["user_message", "llm_response"]


def test_a_trace_id_that_is_too_long_loses_its_events(proxy: Collector, http: httpx.Client) -> None:
    """The proxy does not look at its length."""
    answer = http.post("/chat/completions", json=CHAT, headers={**AGENT, "X-Trace-ID": "x" * 300})

    assert answer.status_code == 200
    assert (proxy.stored, len(proxy.dead_letters)) == ([], 2)


def test_reports_of_answers_can_be_held_back(proxy: Collector, http: httpx.Client) -> None:
    """Until the test lets them: meanwhile others take their numbers, and their time stays that of the answer."""
    proxy.emit_late = True
    http.post("/chat/completions", json=CHAT, headers=TRACE)
    held = len(proxy.held)
    late = {"eventType": "user_message", "traceId": "t", "agentName": "shop", "content": "Meanwhile."}
    httpx.post(f"{proxy.url}/events", json=late, headers=KEY)
    proxy.let_emit()

    assert (held, proxy.held) == (1, [])
    assert [(row["eventType"], row["stepId"]) for row in proxy.stored] == [
        ("user_message", 1),
        ("user_message", 2),
        ("llm_response", 3),
    ]
    assert proxy.stored[2]["timestamp"] <= proxy.stored[1]["timestamp"]


def test_a_stream_is_reported_whole_if_its_client_leaves(
    proxy: Collector, provider: Provider, http: httpx.Client
) -> None:
    """The proxy reads on to the end."""
    gate = Gate(after=1)
    text = "One " + "and on " * 2000
    provider.say(text, gate)
    with http.stream("POST", "/chat/completions", json={**CHAT, "stream": True}, headers=TRACE) as answer:
        next(answer.iter_raw())
    gate.open()
    proxy.wait_for(lambda: len(proxy.stored) == 2)

    assert proxy.stored[1]["content"] == {"content": text, "toolCalls": [], "finishReason": "stop"}


@pytest.mark.parametrize(("path", "body"), [("/responses", RESPONSES), ("/messages", CLAUDE)])
def test_a_stream_that_is_cut_upstream_is_cut_and_not_reported(
    proxy: Collector, provider: Provider, http: httpx.Client, path: str, body: Any
) -> None:
    """Of the answer, nothing is known."""
    provider.say("One two.", Cut(after=1))

    with pytest.raises(LOST):
        http.post(path, json={**body, "stream": True}, headers=TRACE)
    again = http.post(path, json=body, headers={**AGENT, "X-Trace-ID": "u"})

    assert kinds(proxy.trace("t")) == ["user_message"]
    assert again.status_code == 200


def test_a_chat_stream_that_is_cut_upstream_seems_to_end(
    proxy: Collector, provider: Provider, http: httpx.Client
) -> None:
    """Without its last line, without a signature, and without a report."""
    provider.say("One two.", Cut(after=1))

    answer = http.post("/chat/completions", json={**CHAT, "stream": True}, headers=TRACE)

    assert [json.loads(frame[6:])["choices"][0]["delta"] for frame in answer.text.split("\n\n")[:-1]] == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "One"},
    ]
    assert kinds(proxy.trace("t")) == ["user_message"]


def test_a_stream_that_fails_upstream_is_reported_as_far_as_it_came(
    proxy: Collector, provider: Provider, http: httpx.Client
) -> None:
    """The error passes to the client."""
    provider.script = lambda request: Reply("One two.", incidents=(Failure(500, "It broke.", after=1),))
    answers = {
        path: http.post(path, json={**body, "stream": True}, headers={**AGENT, "X-Trace-ID": path}).text
        for path, body in (("/chat/completions", CHAT), ("/responses", RESPONSES), ("/messages", CLAUDE))
    }
    contents = [proxy.trace(path)[1]["content"] for path in answers]

    assert all("It broke." in text for text in answers.values())
    assert [content["content"] for content in contents] == ["One"] * 3
    assert [content.get("finishReason") for content in contents] == [None, "failed", "error"]


def test_a_stopping_proxy_lets_go_of_its_provider(provider: Provider) -> None:
    """A stream that hangs upstream is cut."""
    gate = Gate(after=1)
    provider.say("One two.", gate)
    with Collector() as proxy, httpx.Client() as http, pytest.raises(LOST):
        proxy.upstream = provider
        url, headers = f"{proxy.root}/v1/chat/completions", {**KEY, **TRACE}
        with http.stream("POST", url, json={**CHAT, "stream": True}, headers=headers) as answer:
            pieces = answer.iter_raw()
            next(pieces)
            proxy.stop()
            list(pieces)

    assert kinds(proxy.trace("t")) == ["user_message"]


def test_events_of_the_sdk_and_of_the_proxy_make_one_trace(proxy: Collector, http: httpx.Client) -> None:
    """The proxy's are numbered after the last; what is spaced widely enough stays in order."""
    about = {"traceId": "t", "agentName": "shop"}
    first = {**about, "eventType": "user_message", "content": "Hi.", "stepId": 1}
    last = {**about, "eventType": "llm_thinking", "content": "Done.", "stepId": 1001, "parentStepId": 3}
    httpx.post(f"{proxy.url}/events", json=first, headers=KEY)
    http.post("/chat/completions", json=CHAT, headers=TRACE)
    httpx.post(f"{proxy.url}/events", json=last, headers=KEY)
    rows = proxy.trace("t")

    assert [(row["stepId"], row["parentStepId"]) for row in rows] == [(1, None), (2, 1), (3, 2), (1001, 3)]
    check(rows)
