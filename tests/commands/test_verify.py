"""``whyops-trace verify``: what of a trace is on the server, what is missing there, and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from collector import Close, Collector, Fault
from journals import die, make
from lines import Process, encoded, tool_request, tool_response
from wire import Answer, Request

from whyops_trace import Trace, WhyOps
from whyops_trace._journal.header import Counts
from whyops_trace.cli import main
from whyops_trace.store import Store

TRACE = "checkout-8841"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home of its own."""
    return tmp_path / "home"


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, collector: Collector) -> Callable[..., Result]:
    """Verifies a trace in this process."""

    def call(*arguments: object, key: str = "whyops_test", url: str = collector.url) -> Result:
        monkeypatch.setenv("WHYOPS_ANALYSE_URL", url)
        monkeypatch.setenv("WHYOPS_API_KEY", key)
        return CliRunner().invoke(main, ["verify", *map(str, arguments or [TRACE])])

    return call


def client(home: Path, collector: Collector, **options: Any) -> WhyOps:
    """Return a client that keeps what it sends to the collector."""
    urls = {"analyse_base_url": collector.url, "proxy_base_url": collector.proxy_url}
    return WhyOps("whyops_test", "shop", home=home, exit_timeout=0.0, **{"store": True, **urls, **options})


def call_tool(trace: Trace, name: str) -> None:
    """Record a tool call."""
    span = trace.tool_call_request_sync(name, [{"name": name, "arguments": {}}])
    call: Any = {"name": name}
    trace.tool_call_response_sync(name, span, [call], {"ok": True})


def post(collector: Collector, *events: dict[str, Any]) -> None:
    """Let the server store events that this home did not record, without going through its socket."""
    for event in events:
        collector._process(event, "tenant")


def report(result: Result) -> dict[str, Any]:
    """Return what was printed as JSON, without the words."""
    said: dict[str, Any] = json.loads(result.stdout)
    said["missing"] = [(event["stepId"], event["name"], event["cause"]) for event in said["missing"]]
    said["findings"] = [finding["kind"] for finding in said["findings"]]
    return said


def test_a_trace_that_is_all_there(cli: Callable[..., Result], home: Path, collector: Collector) -> None:
    """One line says so; how long a step took is not expected there."""
    sdk = client(home, collector)
    with sdk.trace(TRACE) as trace, sdk.step("plan"):
        call_tool(trace, "charge_card")
    sdk.close_sync(30)
    result = cli()

    assert result.stdout == f"{TRACE} at {collector.url}: 3 of 3 events are there.\n"
    assert (result.stderr, result.exit_code) == ("", 0)
    assert cli("latest").stdout == result.stdout
    assert report(cli(TRACE, "--json")) == {
        "trace": TRACE,
        "server": collector.url,
        "complete": True,
        "known": 3,
        "there": 3,
        "missing": [],
        "findings": [],
    }


def test_events_that_still_wait_in_the_journal(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """Each is named, and how to deliver them; without a local store too."""
    sdk = client(home, collector, store=False)
    trace = sdk.trace(TRACE)
    trace.user_message_sync([{"role": "user", "content": "hello"}])
    sdk.flush_sync(30)
    collector.script = lambda request: Answer(503) if request.method == "POST" else None
    call_tool(trace, "charge_card")
    running = cli()
    sdk.close_sync()
    left = cli()

    assert "Missing: waiting in the journal of a running process, which delivers it.\n" in running.stdout
    assert "Missing: waiting in the journal: `whyops-trace journal flush` delivers it.\n" in left.stdout
    assert [line.split("  ")[1:4] for line in left.stdout.splitlines() if line.startswith("  ")] == [
        ["step 2", "tool_call_request", "charge_card"],
        ["step 3", "tool_call_response", "charge_card"],
    ]
    assert left.exit_code == 1

    collector.script = None
    CliRunner().invoke(main, ["journal", "flush"])

    assert cli().exit_code == 0


def test_events_that_wait_for_another_key(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """Flushing would not help."""
    collector.keys["whyops_other"] = "tenant"
    collector.script = lambda request: Answer(503) if request.method == "POST" else None
    sdk = client(home, collector, store=False)
    call_tool(sdk.trace(TRACE), "charge_card")
    sdk.close_sync()

    assert "waiting in the journal: they were recorded with another key" in cli(key="whyops_other").stdout
    assert {cause for *_, cause in report(cli(TRACE, "--json", key="whyops_other"))["missing"]} == {
        "waits_for_key"
    }


def test_events_that_the_server_refused(cli: Callable[..., Result], home: Path, collector: Collector) -> None:
    """With its own words."""
    collector.reject = lambda event: "too rude" if event["eventType"] == "error" else None
    sdk = client(home, collector)
    trace = sdk.trace(TRACE)
    trace.error_sync("out of stock")
    call_tool(trace, "charge_card")
    sdk.close_sync(30)
    result = cli()

    assert "Missing: refused by the server, 400: too rude.\n  step 1  error  20" in result.stdout
    assert result.exit_code == 1


def test_events_of_a_trace_that_another_agent_has(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """The likely cause is named with the server's words."""
    post(collector, {"eventType": "error", "traceId": TRACE, "agentName": "another", "content": {}})
    sdk = client(home, collector)
    sdk.trace(TRACE).error_sync("out of stock")
    sdk.close_sync(30)
    result = cli()

    assert "Missing: refused by the server, 409: " in result.stdout
    assert "the agent's metadata or name changed while the trace was open" in result.stdout
    assert "1 more is there that this home does not know" in result.stdout
    assert report(cli(TRACE, "--json"))["missing"] == [(1, "", "agent_conflict")]


def test_a_trace_that_was_sampled_out(cli: Callable[..., Result], home: Path, collector: Collector) -> None:
    """The setting is named."""
    post(collector, {"eventType": "error", "traceId": "first", "agentName": "shop", "content": {}})
    collector.sampling_rate = 0.0
    sdk = client(home, collector)
    call_tool(sdk.trace(TRACE), "charge_card")
    sdk.close_sync(30)
    result = cli()

    assert f"{TRACE} at {collector.url}: 0 of 2 events are there.\n" in result.stdout
    assert f"PATCH {collector.url}/entities/<the agent's id>/sampling-rate" in " ".join(result.stdout.split())
    assert report(cli(TRACE, "--json"))["missing"] == [
        (1, "charge_card", "trace"),
        (2, "charge_card", "trace"),
    ]


def test_events_beyond_the_quota_of_spans(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """Their spans are unknown to the server."""
    collector.max_spans = 2
    sdk = client(home, collector)
    trace = sdk.trace(TRACE)
    for name in ("one", "two", "three"):
        call_tool(trace, name)
    sdk.close_sync(30)
    result = cli()

    assert (
        "Missing: no event of its span is there. Probably the agent has used up the span ids" in result.stdout
    )
    assert report(cli(TRACE, "--json"))["missing"] == [
        (5, "three", "span_quota"),
        (6, "three", "span_quota"),
    ]


def test_an_event_that_is_gone_for_no_known_reason(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """It says that nothing is known, and what the trace lacks without it."""
    sdk = client(home, collector)
    call_tool(sdk.trace(TRACE), "charge_card")
    sdk.close_sync(30)
    collector.stored.pop(0)
    said = report(cli(TRACE, "--json"))

    assert said["missing"] == [(1, "charge_card", "unknown")]
    assert said["findings"] == ["missing_parent"]


def test_an_event_that_only_another_destination_waits_for(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """The server had it, so flushing would not bring it back."""
    process = Process(trace=TRACE)
    dead = make(home, destinations=["whyops", "archive"])
    dead.append(encoded(process.event("error", 1)) + b"\n")
    (segment,) = dead.segments
    segment.commit("whyops", segment.end, Counts(delivered=1))
    die(dead)
    post(collector, process.event("error", 2))

    assert report(cli(TRACE, "--json"))["missing"] == [(1, "", "unknown")]


def test_what_only_the_journal_has_for_the_store_is_taken_in(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """As other commands do that look at traces."""
    process = Process(trace=TRACE)
    dead = make(home, destinations=["local"])
    dead.append(encoded(process.event("error", 1)) + b"\n")
    die(dead)
    post(collector, process.event("error", 1))

    assert (report(cli("latest", "--json"))["trace"], report(cli(TRACE, "--json"))["known"]) == (TRACE, 1)


def test_a_conversation_that_two_processes_recorded(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """Events are matched by their keys, since the server's numbers are others."""
    here = client(home, collector)
    here.trace(TRACE).user_message_sync([{"role": "user", "content": "hello"}])
    here.close_sync(30)
    elsewhere = client(home.with_name("elsewhere"), collector)
    call_tool(elsewhere.trace(TRACE), "charge_card")
    elsewhere.close_sync(30)
    both = cli(TRACE, "--json")
    other = cli(TRACE, "--json", "--home", elsewhere.settings.home)

    assert [row["stepId"] for row in collector.trace(TRACE)] == [1, 2, 3]
    assert [(said["known"], said["there"]) for said in map(report, (both, other))] == [(1, 3), (2, 3)]
    assert "2 more are there that this home does not know" in cli().stdout
    assert (both.exit_code, other.exit_code) == (0, 0)


def test_a_trace_that_this_home_does_not_know(cli: Callable[..., Result], collector: Collector) -> None:
    """It is checked against itself, and found whole."""
    process = Process(trace=TRACE)
    post(collector, tool_request(process, 1), tool_response(process, 2, 1))
    result = cli()

    assert result.stdout == (
        f"{TRACE} at {collector.url}: 2 events. "
        "This home knows nothing of the trace, so it is only checked against itself.\n"
    )
    assert result.exit_code == 0


def test_what_is_wrong_with_a_trace_in_itself(cli: Callable[..., Result], collector: Collector) -> None:
    """Steps given twice, steps that are not there, parents that do not exist, requests without a response."""
    process = Process(trace=TRACE)
    post(
        collector,
        tool_request(process, 1, tool="search"),
        process.event("error", 2, 1),
        process.event("error", 2, 1),
        tool_request(process, 6, 4, tool="charge_card"),
        tool_response(process, 8, 6, tool="charge_card"),
        tool_request(process, 1001, 8, tool="refund"),
        # Its parent is another event, but it has the span of the first request.
        tool_response(process, 1002, 2, tool="search"),
    )
    result = cli()

    assert result.stdout.splitlines()[1:] == [
        "Step 2 is there more than once: two processes recorded on this trace at the same time.",
        "Steps 3 to 5, Step 7: nothing is there; some events may be missing.",
        "Step 6 follows from step 4, which is not there.",
        "Step 1001 (tool_call_request refund) has no response.",
    ]
    assert result.exit_code == 1


def test_room_for_the_proxy_is_no_gap(cli: Callable[..., Result], collector: Collector) -> None:
    """At whatever place within a thousand; a step that is missing beside the proxy's events is named."""
    process = Process(trace=TRACE)
    ask = {"eventType": "user_message", "traceId": TRACE, "agentName": "shop", "content": {"text": "?"}}
    post(collector, tool_request(process, 1), tool_response(process, 1367, 1), {**ask, "stepId": 1368})
    post(collector, process.event("error", 2367, 1368))
    whole = cli()
    post(collector, process.event("error", 2369, 2367))
    broken = cli()

    assert whole.exit_code == 0
    assert "nothing is there" not in whole.stdout
    assert "Step 2368: nothing is there; some events may be missing." in broken.stdout


def test_many_findings_of_a_kind_are_one_line(cli: Callable[..., Result], collector: Collector) -> None:
    """The first ten are named."""
    process = Process(trace=TRACE)
    for step in range(1, 13):
        post(collector, process.event("error", step), process.event("error", step))

    assert "Steps 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more are there more than once" in cli().stdout


def test_a_trace_that_nobody_knows(cli: Callable[..., Result], home: Path) -> None:
    """It is likely misspelt; the check leaves no files."""
    result = cli("nope")

    assert result.stdout.endswith("Neither the server nor this home knows anything of this trace.\n")
    assert result.exit_code == 1
    assert not home.exists()
    assert cli("latest").stderr == "Error: There are no traces yet.\n"


def test_a_long_trace_is_read_page_by_page(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """As many events as the server gives at a time, and none of their contents."""
    process = Process(trace=TRACE)
    events = [process.event("error", step, step - 1 or None, at=step) for step in range(1, 1_002)]
    post(collector, *events)
    store = Store(home / "traces.db")
    store.ingest((process.token, [encoded(event) for event in events]))
    store.close()
    result = cli()

    assert "1,001 of 1,001 events are there.\n" in result.stdout
    assert [int(request.query["offset"]) for request in collector.requests] == [0, 200, 400, 600, 800, 1000]
    assert {request.query["include"] for request in collector.requests} == {"metadata"}


class Shuffling(Collector):
    """A server that lists events of the same time in another order on the first page than on the second."""

    def _list(self, query: Any) -> Answer:
        turn = -1 if (query["limit"], query["offset"]) == ("200", "0") else 1
        self.stored.sort(key=lambda row: turn * row["stepId"])
        return super()._list(query)


def test_events_of_the_same_time_are_found_on_a_second_reading(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may change their order from page to page, so that one page repeats what another left out."""
    process = Process(trace=TRACE)
    events = [process.event("error", step, step - 1 or None) for step in range(1, 301)]
    store = Store(home / "traces.db")
    store.ingest((process.token, [encoded(event) for event in events]))
    store.close()
    monkeypatch.setenv("WHYOPS_API_KEY", "whyops_test")
    with Shuffling() as collector:
        post(collector, *events)
        monkeypatch.setenv("WHYOPS_ANALYSE_URL", collector.url)
        result = CliRunner().invoke(main, ["verify", TRACE])
        limits = [request.query["limit"] for request in collector.requests]

    assert "300 of 300 events are there.\n" in result.stdout
    assert limits == ["200", "200", "199", "199"]
    assert result.exit_code == 0


def test_events_that_the_server_counts_and_never_shows(
    cli: Callable[..., Result], collector: Collector
) -> None:
    """Then nothing can be said for sure."""
    page = {"events": [], "pagination": {"total": 2, "limit": 200, "offset": 0, "hasMore": True}}
    collector.script = lambda _: Answer(200, page)
    result = cli()

    assert "The server counts 2 more events than it shows" in result.stdout
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            Answer(401, {"error": "Unauthorized"}),
            "it refuses the API key (401). Check api_key (WHYOPS_API_KEY)",
        ),
        (Answer(404, "<html>"), "it answers 404, as no WhyOps server does"),
        (Answer(301, headers={"Location": "/login"}), "it redirects (301)"),
        (
            Answer(200, "<html>login</html>", content_type="text/html"),
            "it answers 200, as no WhyOps server does",
        ),
        (Answer(400, {"error": "no such parameter"}), "400: no such parameter"),
        (Answer(503, headers={"Retry-After": "100"}), "it is not available at present (503)"),
        (Close(), "cannot be reached: "),
    ],
    ids=str,
)
def test_a_server_that_does_not_list_events_is_one_line(
    cli: Callable[..., Result], collector: Collector, fault: Fault, words: str
) -> None:
    """It says what to check."""
    collector.script = lambda _: fault
    result = cli()

    assert result.stderr.startswith("Error: The trace cannot be read back: ")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert (result.stdout, result.exit_code) == ("", 1)


def test_a_server_that_is_down_for_a_moment_is_asked_again(
    cli: Callable[..., Result], collector: Collector
) -> None:
    """One page that fails is not the end of a long trace."""
    process = Process(trace=TRACE)
    post(collector, process.event("error", 1))
    collector.script = lambda _: Answer(503) if len(collector.requests) < 1 else None

    assert cli().exit_code == 0
    assert len(collector.requests) == 2


def test_pages_that_are_too_long_become_smaller(cli: Callable[..., Result], collector: Collector) -> None:
    """Metadata may be large; a connection that breaks is treated the same."""
    process = Process(trace=TRACE)
    post(collector, *(process.event("error", step, step - 1 or None) for step in range(1, 31)))

    def script(request: Request) -> Fault | None:
        return Close() if int(request.query["limit"]) > 20 else None

    collector.script = script

    assert ": 30 events." in cli().stdout
    assert [request.query["limit"] for request in collector.requests][-2:] == ["20", "20"]


def test_a_key_is_needed(cli: Callable[..., Result]) -> None:
    """The variable is named."""
    result = cli(key="")

    assert result.stderr == "Error: WHYOPS_API_KEY is not set: it names the account that the trace is in.\n"
    assert result.exit_code == 1


def test_what_a_home_holds_need_not_be_sound(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """Lines that are no events are passed over, wherever they are."""
    process = Process(trace=TRACE)
    dead = make(home, destinations=["whyops"])
    for line in (b"junk", b'{"eventType":1}', b"\xff", encoded(process.event("error", 1))):
        dead.append(line + b"\n")
    die(dead)
    damaged = home / "journal" / "shop" / "000000000000-1.seg"
    damaged.write_bytes(b"junk" * 2000)
    letter = json.dumps({"at": "", "reason": "400: no", "event": process.event("error", 2)})
    (home / "rejected.ndjson").write_text(f'junk\n{{"event": {{}}}}\n{letter}\n')
    post(collector, process.event("error", 3))
    said = report(cli(TRACE, "--json"))

    assert said["missing"] == [(1, "", "waits_for_key"), (2, "", "refused")]
    assert damaged.exists() or damaged.with_name(damaged.name + ".bad").exists()


def test_nothing_a_trace_holds_reaches_the_terminal(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """Names are shown as text on one line."""
    process = Process(trace=TRACE)
    store = Store(home / "traces.db")
    store.ingest((process.token, [encoded(tool_request(process, 1, tool="\x1b[31mred\n"))]))
    store.close()
    said = cli().stdout

    assert "\x1b" not in said
    assert "\\x1b[31mred" in said


def test_help_has_an_example(cli: Callable[..., Result]) -> None:
    """And explains the argument."""
    said = cli("--help").stdout

    assert "Example: whyops-trace verify checkout-8841" in said
    assert "TRACE is its id" in said
