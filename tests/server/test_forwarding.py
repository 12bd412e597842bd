"""What a server forwards of what it gets: spans as they came, events as spans, each once, and counted."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from forwards import Serve
from programs import run, run_code
from receiver import Hang, Partial, Receiver, Refuse

from whyops_trace._home import STORE_FILE
from whyops_trace.exporters.otlp.forwarding import ForwardExporter
from whyops_trace.server.forwarding import Forwarder, status_of
from whyops_trace.server.inbox import reading_inbox
from whyops_trace.server.wire import read_events
from whyops_trace.store import Store
from whyops_trace.store.collection import SentEvent
from whyops_trace.store.forwards import Forwards

TRACE = "5b8efff798038103d269b633813fc60c"
OTHER = "0af7651916cd43dd8448eb211c80319c"
CONTENT = ("--forward-content",)
#: A span as another SDK sends it, with what no convention of ours explains.
SPAN: dict[str, Any] = {
    "traceId": TRACE,
    "spanId": "00f067aa0ba902b7",
    "parentSpanId": "b9c7c989f97918e1",
    "traceState": "vendor=1",
    "name": "execute_tool depth",
    "kind": 3,
    "startTimeUnixNano": "1800000000000000000",
    "endTimeUnixNano": "1800000000005000000",
    "attributes": [
        {"key": "gen_ai.operation.name", "value": {"stringValue": "execute_tool"}},
        {"key": "gen_ai.tool.call.arguments", "value": {"stringValue": '{"lake": "Geneva"}'}},
        {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "12"}},
        {
            "key": "shop.list",
            "value": {
                "arrayValue": {"values": [{"intValue": "1"}, {"doubleValue": 1.5}, {"boolValue": True}]}
            },
        },
        {
            "key": "shop.map",
            "value": {"kvlistValue": {"values": [{"key": "a", "value": {"stringValue": "b"}}]}},
        },
    ],
    "events": [
        {
            "name": "gen_ai.choice",
            "timeUnixNano": "1800000000001000000",
            "attributes": [
                {"key": "index", "value": {"intValue": "0"}},
                {"key": "message", "value": {"stringValue": "deep"}},
            ],
        }
    ],
    "links": [{"traceId": OTHER, "spanId": "b7ad6b7169203331"}],
    "status": {"code": 2, "message": "too deep"},
}
RESOURCE = {"attributes": [{"key": "service.name", "value": {"stringValue": "guide"}}]}


def request(*spans: dict[str, Any]) -> dict[str, Any]:
    """Return a request in OTLP/JSON."""
    scope = {"scope": {"name": "lib", "version": "2"}, "schemaUrl": "https://example/1", "spans": spans}
    return {"resourceSpans": [{"resource": RESOURCE, "scopeSpans": [scope]}]}


def post(server: Serve, path: str, body: object) -> None:
    """Send JSON, which must be taken."""
    answer = httpx.post(server.url + path, json=body, timeout=30)

    assert answer.status_code < 300, answer.text


def event(kind: str, step: int, trace: str = "t", **members: Any) -> dict[str, Any]:
    """Return an event of a client."""
    tool = {"metadata": {"tool": "depth"}} if kind.startswith("tool_call") else {}
    return {
        "eventType": kind, "traceId": trace, "agentName": "shop", "stepId": step, "spanId": "s",
        "idempotencyKey": f"{trace}-{step}", **tool, **members,
    }  # fmt: skip


def call(trace: str) -> list[dict[str, Any]]:
    """Return the events of a call of a tool."""
    return [
        event("tool_call_request", 1, trace, content={"toolCalls": [{"name": "depth", "arguments": {"n": 1}}]}),
        event(
            "tool_call_response", 2, trace, content={"toolResults": {"result": 310}}, parentStepId=1,
            timestamp="2030-01-31T12:00:01.000Z",
        ),
    ]  # fmt: skip


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Run a receiver for the test."""
    with Receiver() as receiver:
        yield receiver


@pytest.mark.parametrize("protocol", ["json", "protobuf"])
def test_a_span_goes_on_as_it_came(receiver: Receiver, tmp_path: Path, protocol: str) -> None:
    """Its ids, its parent, its links, its program and library, and the attributes that nothing explains."""
    with Serve(tmp_path, receiver.url, options=CONTENT) as server:
        if protocol == "json":
            post(server, "/v1/traces", request(SPAN))
        else:
            body = as_protobuf(request(SPAN))
            headers = {"Content-Type": "application/x-protobuf"}
            assert httpx.post(f"{server.url}/v1/traces", content=body, headers=headers).status_code == 200
        (span,) = receiver.wait(1)
        (status,) = server.until_forwarded()

    assert (span.trace_id, span.id, span.parent) == (TRACE, SPAN["spanId"], SPAN["parentSpanId"])
    assert (span.name, span.kind, span.state) == ("execute_tool depth", 3, "vendor=1")
    assert (span.start_ns, span.end_ns) == (1_800_000_000_000_000_000, 1_800_000_000_005_000_000)
    assert (span.status, span.message, span.links) == (2, "too deep", ["b7ad6b7169203331"])
    assert span.attributes == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.call.arguments": '{"lake": "Geneva"}',
        "gen_ai.usage.input_tokens": 12,
        "shop.list": [1, 1.5, True],
        "shop.map": {"a": "b"},
    }
    assert span.events == [("gen_ai.choice", {"index": 0, "message": "deep"})]
    assert span.resource == {"service.name": "guide", "scope": "lib", "schema": "https://example/1"}
    assert (status["forwarded"], status["rejected"], status["dropped"]) == (1, 0, 0)


def as_protobuf(body: dict[str, Any]) -> bytes:
    """Return a request in protobuf."""
    json_format = pytest.importorskip("google.protobuf.json_format")
    service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

    def with_base64(thing: Any) -> Any:
        if isinstance(thing, list):
            return [with_base64(each) for each in thing]
        if not isinstance(thing, dict):
            return thing
        return {
            name: base64.b64encode(bytes.fromhex(value)).decode()
            if name in ("traceId", "spanId", "parentSpanId")
            else with_base64(value)
            for name, value in thing.items()
        }

    plain = with_base64(json.loads(json.dumps(body)))
    message: bytes = json_format.ParseDict(plain, service.ExportTraceServiceRequest()).SerializeToString()
    return message


def test_a_server_forwards_to_another_one(receiver: Receiver, tmp_path: Path) -> None:
    """Over both the span is the same, and both show its trace."""
    with (
        Serve(tmp_path / "far", receiver.url, options=CONTENT) as far,
        Serve(tmp_path / "near", far.url, options=CONTENT) as near,
    ):
        post(near, "/v1/traces", request({**SPAN, "parentSpanId": ""}))
        post(near, "/api/events", call("t"))
        receiver.wait(2)
        homes = [server.home for server in (near, far)]
    traces = [Store(home / STORE_FILE).traces() for home in homes]

    assert (TRACE, SPAN["spanId"]) in [(span.trace_id, span.id) for span in receiver.arrived]
    assert [[trace.tool_calls for trace in there] for there in traces] == [[1, 1], [1, 1]]


def test_content_stays_here_unless_it_is_asked_for(receiver: Receiver, tmp_path: Path) -> None:
    """Of spans and of events: numbers, names, errors and times go on."""
    with Serve(tmp_path, receiver.url) as server:
        post(server, "/v1/traces", request(SPAN))
        post(server, "/api/events", call("t"))
        receiver.wait(2)
    span, of_events = sorted(receiver.arrived, key=lambda span: span.trace_id != TRACE)

    assert "gen_ai.tool.call.arguments" not in span.attributes
    assert span.attributes["gen_ai.usage.input_tokens"] == 12
    assert span.events == [("gen_ai.choice", {"index": 0})]
    assert of_events.name == "execute_tool depth"
    assert not any("call" in name for name in of_events.attributes)


def test_log_records_go_on_too(receiver: Receiver, tmp_path: Path) -> None:
    """With the span they belong to; a receiver without an address for them counts them as rejected."""
    log = {
        "traceId": TRACE, "spanId": SPAN["spanId"], "timeUnixNano": "1800000000001000000", "severityText": "INFO",
        "eventName": "gen_ai.user.message", "body": {"stringValue": "hi"},
        "attributes": [{"key": "gen_ai.system", "value": {"stringValue": "openai"}}],
    }  # fmt: skip
    scope = {"scope": {"name": "lib"}, "logRecords": [log]}
    body = {"resourceLogs": [{"resource": RESOURCE, "scopeLogs": [scope]}]}
    with Serve(tmp_path, receiver.url, options=CONTENT) as server:
        post(server, "/v1/logs", body)
        server.until_forwarded()
        (arrived,) = receiver.logs
        receiver.takes_logs = False
        log["timeUnixNano"] = "1800000000002000000"
        post(server, "/v1/logs", body)
        post(server, "/v1/traces", request(SPAN))
        (status,) = server.until_forwarded()

    assert (arrived.trace_id, arrived.span_id, arrived.name) == (TRACE, SPAN["spanId"], "gen_ai.user.message")
    assert (arrived.body, arrived.severity, arrived.attributes) == ("hi", "INFO", {"gen_ai.system": "openai"})
    assert arrived.resource == {"service.name": "guide", "scope": "lib"}
    assert (status["forwarded"], status["rejected"]) == (2, 1)


def test_what_is_sent_again_goes_on_once(receiver: Receiver, tmp_path: Path) -> None:
    """Spans by their ids, events by their keys, also after the server was started anew."""
    with Serve(tmp_path, receiver.url, options=CONTENT) as server:
        for _ in range(2):
            for _ in range(2):
                post(server, "/v1/traces", request(SPAN))
                post(server, "/api/events", call("t"))
            server.until_forwarded()
            server.kill()
            server.start()
        post(server, "/api/events", call("last"))
        receiver.wait(3)
        (status,) = server.until_forwarded()

    assert len(receiver.arrived) == 3
    assert status["forwarded"] == 5


def test_what_programs_of_this_machine_record_goes_on(receiver: Receiver, tmp_path: Path) -> None:
    """Into the same home, without a setting: a trace as a whole, and each turn of a conversation in it."""
    code = """
    from whyops_trace import WhyOps, traced_tool
    sdk = WhyOps(agent_name="shop")
    @traced_tool
    def add(a: int) -> int: return a
    with sdk.trace("conversation"):
        add(1)
    sdk.close_sync()
    """
    with Serve(tmp_path, receiver.url, options=CONTENT) as server:
        for _ in range(2):
            assert run_code(code, tmp_path).stderr == ""
        receiver.wait(3)
        server.until_forwarded()
    (root,) = [span for span in receiver.arrived if span.name == "invoke_agent shop"]
    tools = [span for span in receiver.arrived if span.name == "execute_tool add"]

    assert len(receiver.arrived) == 3
    assert [span.parent for span in tools] == [root.id, root.id]
    assert {span.trace_id for span in tools} == {root.trace_id}


def test_nothing_that_was_there_before_is_forwarded(receiver: Receiver, tmp_path: Path) -> None:
    """It begins with what comes after the first start with a receiver, and goes on where that stopped."""
    with Serve(tmp_path) as server:
        post(server, "/api/events", call("before"))
        post(server, "/v1/traces", request(SPAN))
    with Serve(tmp_path, receiver.url, options=CONTENT) as server:
        post(server, "/api/events", call("first"))
        server.until_forwarded()
    with Serve(tmp_path) as server:  # whoever forwards later goes on with this
        post(server, "/api/events", call("second"))
        post(server, "/v1/traces", request({**SPAN, "spanId": "00000000000000aa"}))
    with Serve(tmp_path, receiver.url, options=CONTENT) as server:
        receiver.wait(3)
        server.until_forwarded()

    assert sorted(span.trace_id == TRACE for span in receiver.arrived) == [False, False, True]


def test_a_receiver_that_hangs_delays_nobody_else(receiver: Receiver, tmp_path: Path) -> None:
    """Neither the other receiver, nor pages, nor what comes in; the ledger says what waits, and since when."""
    with Receiver() as hanging:
        hanging.fail(always=Hang())
        with Serve(tmp_path, receiver.url, hanging.url, options=CONTENT) as server:
            post(server, "/v1/traces", request(SPAN))
            receiver.wait(1)
            hanging.wait_for_requests(1)
            post(server, "/api/events", call("t"))
            receiver.wait(2)
            page = httpx.get(server.url)
            waiting = {each["url"]: each["pending"] for each in server.status()}
            hanging.calm()
            hanging.wait(2, timeout=60)
            server.until_forwarded()

    assert page.status_code == 200
    assert sorted(waiting.values()) == [0, 3]


def test_refusals_are_counted(receiver: Receiver, tmp_path: Path) -> None:
    """Those of single spans, and those of a part of a request; an outage is none."""
    receiver.fail(Refuse(503), Partial(1), Refuse(400))
    with Serve(tmp_path, receiver.url, options=CONTENT) as server:
        post(server, "/v1/traces", request(SPAN, {**SPAN, "spanId": "00000000000000aa"}))
        receiver.wait(1)
        server.until_forwarded()
        post(server, "/v1/traces", request({**SPAN, "spanId": "00000000000000ab"}))
        (status,) = server.until_forwarded()

    assert (status["forwarded"], status["rejected"], status["dropped"], status["error"]) == (1, 2, 0, "")


def test_headers_and_settings_are_those_of_any_export(receiver: Receiver, tmp_path: Path) -> None:
    """A header of the option, gzip of the variables."""
    options = ("--forward-header", "Authorization=Bearer key 1")
    with Serve(tmp_path, receiver.url, options=options, OTEL_EXPORTER_OTLP_COMPRESSION="gzip") as server:
        post(server, "/v1/traces", request(SPAN))
        receiver.wait(1)
    headers = receiver.requests[-1].headers

    assert (headers["authorization"], headers["content-encoding"]) == ("Bearer key 1", "gzip")


def test_two_servers_of_one_home_forward_each_span_once(receiver: Receiver, tmp_path: Path) -> None:
    """One of them does; when it is killed the other goes on."""
    with Serve(tmp_path, receiver.url) as one, Serve(tmp_path, receiver.url) as other:
        post(one, "/v1/traces", request(SPAN))
        post(other, "/v1/traces", request({**SPAN, "spanId": "00000000000000aa"}))
        receiver.wait(2)
        other.until_forwarded()
        one.kill()
        post(other, "/v1/traces", request({**SPAN, "spanId": "00000000000000ab"}))
        receiver.wait(3, timeout=60)

    assert len({span.id for span in receiver.arrived}) == len(receiver.arrived) == 3


def forwarder(home: Path, receiver: Receiver, **seconds: float) -> Forwarder:
    """Return a forwarder that gives up quickly."""
    seconds = {"quiet": 0.0, "given_up": 3600.0, **seconds}
    return Forwarder(home, ForwardExporter(receiver.url, content=True, home=home), **seconds)


def collected(home: Path, events: list[dict[str, Any]]) -> None:
    """Store events as the collector does."""
    Store(home / STORE_FILE).collect(read_events(json.dumps(events).encode(), SentEvent)[0])


def test_a_trace_that_nobody_ends_is_told_when_it_is_quiet(receiver: Receiver, tmp_path: Path) -> None:
    """With the step around its calls, whose end no client reports; neither is an error."""
    forwards = forwarder(tmp_path, receiver)
    plan = event("llm_thinking", 1, metadata={"step": "plan", "within": 0}, content={"thinking": "plan"})
    inside = [
        {
            **each,
            "stepId": step,
            "idempotencyKey": f"k{step}",
            "metadata": {"tool": "depth", "within": within},
        }
        for each, step, within in zip(call("t"), (2, 3), (1, 2), strict=True)
    ]
    inside[1]["parentStepId"] = 2
    collected(tmp_path, [plan, *inside])
    forwards.start()
    receiver.wait(3)
    forwards.stop()
    spans = receiver.spans

    assert sorted(spans) == ["execute_tool depth", "invoke_agent shop", "plan"]
    assert spans["execute_tool depth"].parent == spans["plan"].id
    assert spans["plan"].parent == spans["invoke_agent shop"].id
    assert {span.status for span in receiver.arrived} == {0}


def test_a_call_without_an_end_is_told_at_last(receiver: Receiver, tmp_path: Path) -> None:
    """As an error that says so; with its end it comes again, whole and under the same id."""
    forwards = forwarder(tmp_path, receiver, given_up=0.0)
    collected(tmp_path, call("t")[:1])
    forwards.start()
    (first, *_) = receiver.wait(2)
    collected(tmp_path, [{**call("t")[1], "metadata": {"tool": "depth", "within": 1}}])
    receiver.wait(3)
    forwards.stop()
    again = receiver.arrived[-1]

    assert (first.status, first.attributes["error.type"]) == (2, "no_end_seen")
    assert (again.id, again.status) == (first.id, 0)


def test_what_waits_is_kept_longer_than_the_rest(tmp_path: Path) -> None:
    """Until it is twice as old, or the store twice as large; then it goes, and is counted."""
    store, forwards = Store(tmp_path / STORE_FILE), Forwards(tmp_path)
    collected(tmp_path, [each for number in range(40) for each in call(f"passed-{number}")])
    forwards.begin("http://127.0.0.1:1/v1/traces", store.last_number())
    pad = {"content": {"messages": [{"role": "user", "content": "x" * 20_000}]}}
    collected(tmp_path, [event("user_message", 1, f"waits-{number}", **pad) for number in range(40)])
    used = store.used_bytes()
    store.prune(max_bytes=used * 2 // 3)
    kept = {trace.trace_id.split("-")[0] for trace in store.traces(100)}
    (before,) = forwards.all()
    store.prune(max_bytes=used // 10)
    (after,) = forwards.all()
    left = len(store.traces(100))

    assert (kept, before.dropped) == ({"waits"}, 0)
    assert after.dropped == 40 - left > 0


def test_a_receiver_that_nobody_forwards_to_is_forgotten(tmp_path: Path) -> None:
    """After the time that traces are kept, so that it holds up nothing for ever."""
    forwards = Forwards(tmp_path)
    forwards.begin("http://127.0.0.1:1/v1/traces", 0)
    forwards.forget(time.time() - 60)
    kept = len(forwards.all())
    forwards.forget(time.time() + 60)

    assert (kept, forwards.all()) == (1, [])


def test_spans_that_wait_are_bounded(tmp_path: Path) -> None:
    """By their bytes, oldest first; the numbers say how many went."""
    with Serve(tmp_path, "http://127.0.0.1:1") as server:
        for number in range(1, 6):
            post(server, "/v1/traces", request({**SPAN, "spanId": f"{number:016x}"}))
        (status,) = server.status()
    inbox = reading_inbox(tmp_path)
    sizes = [len(item.data) for item in inbox.outgoing(0, 1 << 20)]
    dropped = inbox.trim_outgoing(3600, sum(sizes[2:]))

    assert (status["pending"], len(sizes), dropped) == (5, 5, [1, 2])
    assert "reached" in status["error"]
    assert status_of(tmp_path)[0].pending == 3


def test_a_store_that_was_replaced_is_forwarded_from_its_beginning(
    receiver: Receiver, tmp_path: Path
) -> None:
    """Its numbers begin anew, too."""
    forwards = Forwards(tmp_path)
    exporter = ForwardExporter(receiver.url, home=tmp_path)
    forwards.begin(exporter.settings.endpoint, 1_000)
    forwards.advance(exporter.settings.endpoint, items=1_000)
    collected(tmp_path, call("t"))
    forwarding = Forwarder(tmp_path, exporter)
    forwarding.start()
    receiver.wait(1)
    forwarding.stop()

    assert receiver.arrived[0].name == "execute_tool depth"


def test_doctor_tells_how_far_receivers_are(receiver: Receiver, tmp_path: Path) -> None:
    """What they took and what waits; one that cannot be reached is a warning."""
    with Serve(tmp_path, receiver.url, "http://127.0.0.1:1") as server:
        post(server, "/v1/traces", request(SPAN))
        receiver.wait(1)
        while not all(each["forwarded"] or each["error"] for each in server.status()):
            time.sleep(0.05)
    checks = json.loads(run("-m", "whyops_trace", "doctor", "--json", home=tmp_path).stdout)["checks"]
    bad, good = [check for check in checks if check["check"] == "forward"]

    assert (bad["state"], good["state"]) == ("warning", "ok")
    assert "took 0, rejected 0; 1 wait, the oldest for" in bad["message"]
    assert "took 1, rejected 0; 0 wait." in good["message"]


def test_certificates_that_cannot_be_read_are_told_of(tmp_path: Path) -> None:
    """As long as that lasts; they are read again for each request."""
    with Serve(tmp_path, "https://127.0.0.1:1", SSL_CERT_FILE=str(tmp_path / "none.pem")) as server:
        post(server, "/v1/traces", request(SPAN))
        while not (error := server.status()[0]["error"]):
            time.sleep(0.05)

    assert error.startswith("https://127.0.0.1:1/v1/traces cannot be reached: ")
    assert "No such file" in error


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--forward", "localhost:4318"), "it must begin with http:// or https://"),
        (("--forward", "http://localhost:{port}"), "is this server itself"),
        (("--forward", "http://0.0.0.0:{port}"), "is this server itself"),
        (("--allow-host", "buffer", "--forward", "http://Buffer.:{port}"), "is this server itself"),
        (
            ("--forward", "http://h:99999"),
            "--forward: the URL is 'http://h:99999'; it must have a host, and a port",
        ),
        (("--forward", "http://h:1,http://h:2"), "it must have a host, and a port"),
        (("--forward", "http://"), "it must have a host"),
        (("--forward", "http://h", "--forward-header", "key"), "takes NAME=VALUE"),
        (("--forward-header", "name=key"), "take effect with --forward URL only"),
        (("--no-forward-content",), "take effect with --forward URL only"),
    ],
)
def test_a_receiver_that_cannot_be_is_refused(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    """With what to do, before anything is served; a header that may be a key is not told."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    told = [option.replace("{port}", port) for option in options]
    done = run("-m", "whyops_trace", "serve", "--port", port, *told, home=tmp_path)

    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())
