"""An agent is registered before its first event, and what happens where that fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from collector import Collector, Fault, Hang, Reset
from programs import start_code
from serving import DELIVERED, KEY, client, deliver, exporter, messages, refuses, tally
from wire import Answer, Request

from whyops_trace import AgentMetadata, WhyOps, traced_tool
from whyops_trace.exporters.whyops.agent import check_metadata
from whyops_trace.exporters.whyops.retry import LONG_WAIT
from whyops_trace.settings import DEFAULT_PROXY_URL

A: AgentMetadata = {"systemPrompt": "Prompt A."}
B: AgentMetadata = {"systemPrompt": "Prompt B."}
FAILED = Answer(500, {"success": False, "error": "Failed to initialize agent"})


@traced_tool
def double(n: int) -> int:
    return 2 * n


def inits(collector: Collector) -> list[Request]:
    """The requests that were to register an agent."""
    return [request for request in collector.requests if request.path.endswith("/init")]


def on_init(*faults: Fault | None) -> Callable[[Request], Fault | None]:
    """A script by which the first requests to register meet these faults, one each."""
    left = list(faults)

    def script(request: Request) -> Fault | None:
        return left.pop(0) if request.path.endswith("/init") and left else None

    return script


def statuses(collector: Collector) -> list[tuple[str, str]]:
    """What was registered: the prompt and what the server made of it."""
    return [(init["metadata"]["systemPrompt"], init["status"]) for init in collector.inits]


def test_the_agent_is_registered_once_before_the_first_event(collector: Collector) -> None:
    """With its metadata as a server wants it."""
    sdk = client(collector, agent_metadata={**A, "tools": [{"name": "double"}]})
    for _ in range(3):
        sdk.trace().user_message_sync([])
        tally(sdk)

    assert [request.path for request in collector.requests] == ["/api/entities/init"] + ["/api/events"] * 3
    assert collector.requests[0].json == {
        "agentName": "shop",
        "metadata": {
            "systemPrompt": "Prompt A.",
            "tools": [{"name": "double", "description": "double", "inputSchema": "{}", "outputSchema": "{}"}],
        },
    }
    assert collector.traces[collector.stored[0]["traceId"]].version.metadata == collector.inits[0]["metadata"]


def test_without_metadata_nothing_is_registered(collector: Collector) -> None:
    """The server makes an entry for the name at the first event."""
    sdk = client(collector)
    sdk.trace().user_message_sync([])

    assert tally(sdk).delivered == 1
    assert inits(collector) == []
    assert ("tenant", "shop") in collector.agents
    assert sdk.init_agent_sync() is None


def test_events_wait_until_the_agent_is_registered(collector: Collector) -> None:
    """None is sent while the answer to it is out."""
    collector.script = on_init(Hang())
    sdk = client(collector, agent_metadata=A)
    sdk.trace().user_message_sync([])
    collector.wait_for(lambda: len(collector.requests) == 1)
    before = list(collector.stored)
    collector.release()

    assert tally(sdk).delivered == 1
    assert before == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Answer(401, {"error": "Unauthorized"}), "refuses the API key (401)"),
        (Answer(503, b"busy"), "not available at present (503)"),
        (Answer(429, b"", {"Retry-After": "0"}), "asks for fewer requests"),
        (Answer(200, b"<html>login</html>"), "answers 200"),
        (Answer(201, {"success": True}), "answers 201"),
        (Answer(400, b"<html>bad</html>"), "answers 400"),
        (Answer(500, b"<html>bad</html>"), "error of its own (500)"),
        (Answer(302, b"", {"Location": "/login"}), "redirects (302)"),
        (Reset(), "cannot be reached"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_failure_holds_the_events_and_is_tried_again(
    collector: Collector, tmp_path: Path, said: Callable[[], list[str]], fault: Fault, words: str
) -> None:
    """It says what to check, names the agent, and loses nothing."""
    collector.script = on_init(fault)
    to = exporter(collector, tmp_path, agent=check_metadata(A))
    error = refuses(to, messages(3))
    too_early = refuses(to, messages(3))
    to.registration._due = 0.0
    outcomes = deliver(to, messages(3))
    to.close()

    assert words in str(error)
    assert str(error).startswith("registering the agent 'shop': ")
    assert error.wait
    assert str(too_early) == ""
    assert too_early.wait
    assert too_early.wait <= error.wait
    assert len(inits(collector)) == 2
    assert outcomes == [DELIVERED] * 3


def test_a_failure_is_said_once_and_ends_when_the_server_is_well(
    collector: Collector, said: Callable[[], list[str]]
) -> None:
    """A worker goes on by itself."""
    collector.script = on_init(*[Answer(503)] * 2)
    sdk = client(collector, agent_metadata=A)
    sdk.trace().user_message_sync([])

    assert tally(sdk).delivered == 1
    assert len(inits(collector)) == 3
    assert [text for text in said() if "registering the agent" in text] == said()
    assert len(said()) == 1


def test_where_a_500_comes_again_and_again_events_go_without(
    collector: Collector, tmp_path: Path, said: Callable[[], list[str]]
) -> None:
    """Said once; what was recorded is stored."""
    collector.script = on_init(*[FAILED] * 9)
    to = exporter(collector, tmp_path, agent=check_metadata(A))
    errors = []
    for _ in range(2):
        errors.append(refuses(to, messages(3)))
        to.registration._due = 0.0
    outcomes = deliver(to, messages(3))
    to.close()

    assert ["error of its own (500)" in str(error) for error in errors] == [True, True]
    assert outcomes == [DELIVERED] * 3
    assert len(inits(collector)) == 3
    assert ["is not registered with this metadata" in text for text in said()] == [True]


def test_a_500_that_the_server_itself_did_not_say_is_an_outage(collector: Collector, tmp_path: Path) -> None:
    """A gateway's page is no word about the metadata, however often it comes."""
    collector.script = on_init(*[Answer(500, b"<html>oops</html>")] * 5)
    to = exporter(collector, tmp_path, agent=check_metadata(A))
    for _ in range(5):
        refuses(to, messages(1))
        to.registration._due = 0.0
    outcomes = deliver(to, messages(1))
    to.close()

    assert outcomes == [DELIVERED]
    assert statuses(collector) == [("Prompt A.", "created")]


def test_a_rollback_goes_on_without_and_remembers_it(
    collector: Collector, tmp_path: Path, said: Callable[[], list[str]]
) -> None:
    """A, B, A: the server fails for good. The metadata is never altered, and the next process tries only once."""
    for metadata in (A, B):
        to = exporter(collector, tmp_path, agent=check_metadata(metadata))
        deliver(to, messages(1, metadata["systemPrompt"]))
        to.close()
    back = exporter(collector, tmp_path, agent=check_metadata(A))
    for _ in range(2):
        refuses(back, messages(1, "third"))
        back.registration._due = 0.0
    third = deliver(back, messages(1, "third"))
    back.close()
    later = exporter(collector, tmp_path, agent=check_metadata(A))
    fourth = deliver(later, messages(1, "fourth"))
    later.close()

    assert third + fourth == [DELIVERED] * 2
    assert statuses(collector) == [
        ("Prompt A.", "created"),
        ("Prompt B.", "created"),
        *[("Prompt A.", "refused")] * 4,
    ]
    assert [row["traceId"] for row in collector.stored] == ["Prompt A.", "Prompt B.", "third", "fourth"]
    assert sum("is not what it was registered with before" in text for text in said()) == 2
    assert sum("is not registered with this metadata" in text for text in said()) == 1


def test_what_an_earlier_process_left_is_delivered_before_new_metadata_is_registered(
    collector: Collector, tmp_path: Path, said: Callable[[], list[str]]
) -> None:
    """Its traces are of the version it had: registered first, the new one would have them refused."""
    home = tmp_path / "shared"
    program = f"""
    import os
    from whyops_trace import WhyOps, trace
    sdk = WhyOps({KEY!r}, "shop", {A!r}, {collector.proxy_url!r}, {collector.url!r}, exit_timeout=0.0)
    with sdk.trace("open"):
        sdk.trace("open").user_message_sync([])
        assert sdk.flush_sync(30)["whyops"].delivered == 1
        print("delivered", flush=True)
        input()
        for n in range(300):
            sdk.trace("open").user_message_sync([])
        os._exit(0)
    """
    with start_code(program, home) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        collector.stop()
        process.stdin.write("\n")
        process.stdin.flush()
        process.wait(60)
    collector.start()
    sdk = client(collector, home, agent_metadata=B)
    sdk.trace("new").user_message_sync([])

    assert tally(sdk).delivered == 1
    assert len(collector.trace("open")) == 301
    assert [row["traceId"] for row in collector.stored] == ["open"] * 301 + ["new"]
    assert statuses(collector) == [("Prompt A.", "created"), ("Prompt B.", "created")]
    assert ["is not what it was registered with before" in text for text in said()] == [True]


def test_metadata_that_changes_is_warned_about(collector: Collector, said: Callable[[], list[str]]) -> None:
    """The warning says what the server will do; the same again says nothing."""
    for metadata in (A, A, B):
        sdk = client(collector, agent_metadata=metadata)
        sdk.trace().user_message_sync([])
        tally(sdk)
        sdk.close_sync()

    assert statuses(collector) == [
        ("Prompt A.", "created"),
        ("Prompt A.", "existing"),
        ("Prompt B.", "created"),
    ]
    assert len(said()) == 1
    assert "refuses further events of traces that are open under the old one" in said()[0]


def test_other_agents_and_accounts_are_their_own_affair(
    collector: Collector, said: Callable[[], list[str]]
) -> None:
    """Metadata is compared with that of the same agent at the same server and key only."""
    collector.keys["whyops_other"] = "other"
    clients: list[dict[str, Any]] = [{}, {"agent_name": "bank"}, {"api_key": "whyops_other"}]
    for options in clients:
        sdk = client(collector, agent_metadata={"systemPrompt": repr(options)}, **options)
        sdk.trace().user_message_sync([])

        assert tally(sdk).delivered == 1

    assert len(collector.agents) == 3
    assert said() == []


def test_an_account_with_no_room_for_the_agent_holds_its_events(collector: Collector, tmp_path: Path) -> None:
    """Somebody has to make room, or take the name of an agent that exists; then they are delivered."""
    collector.max_agents = 0
    to = exporter(collector, tmp_path, agent=check_metadata(A))
    error = refuses(to, messages(2))
    collector.max_agents = 1
    to.registration._due = 0.0
    outcomes = deliver(to, messages(2))
    to.close()

    assert error.wait == LONG_WAIT
    assert "the account takes no further agent (409: Account agent limit reached" in str(error)
    assert "Use the name of one it has" in str(error)
    assert outcomes == [DELIVERED] * 2


def test_metadata_that_a_server_refuses_holds_up_nothing(
    collector: Collector, said: Callable[[], list[str]]
) -> None:
    """Its words are in the warning."""
    issues = [{"code": "too_big", "path": ["metadata", "systemPrompt"], "message": "Too long"}]
    collector.script = on_init(
        Answer(400, {"success": False, "error": {"issues": issues, "name": "ZodError"}})
    )
    sdk = client(collector, agent_metadata=A)
    sdk.trace().user_message_sync([])

    assert tally(sdk).delivered == 1
    assert len(inits(collector)) == 1
    assert "it refuses the metadata: metadata.systemPrompt: Too long" in said()[0]


def test_a_server_without_the_endpoint_is_asked_at_the_proxy(collector: Collector) -> None:
    """Older ones have it there."""
    collector.script = lambda request: Answer(404) if request.path == "/api/entities/init" else None
    sdk = client(collector, agent_metadata=A)
    sdk.trace().user_message_sync([])

    assert tally(sdk).delivered == 1
    assert [request.path for request in inits(collector)] == ["/api/entities/init", "/v1/agents/init"]
    assert statuses(collector) == [("Prompt A.", "created")]


def test_nobody_else_is_told_of_the_agent_of_a_server_of_one_s_own(
    collector: Collector, tmp_path: Path
) -> None:
    """Where only the server was named, the hosted proxy is not asked in its place."""
    collector.script = lambda request: Answer(404) if request.path == "/api/entities/init" else None
    to = exporter(collector, tmp_path, proxy=DEFAULT_PROXY_URL, agent=check_metadata(A))
    error = refuses(to, messages(1))
    to.close()

    assert "answers 404" in str(error)
    assert [http.base_url for http, _ in to.registration._servers] == [collector.url]


def test_init_agent_returns_what_the_server_says(collector: Collector) -> None:
    """At once, and only once."""
    sdk = client(collector, agent_metadata=A)
    info = sdk.init_agent_sync()
    sdk.trace().user_message_sync([])
    tally(sdk)

    assert info is not None
    assert info["agentId"] == collector.agents["tenant", "shop"].id
    assert info["status"] == "created"
    assert sdk.init_agent_sync() is info
    assert len(inits(collector)) == 1


@pytest.mark.anyio
async def test_init_agent_has_an_awaitable_face(collector: Collector) -> None:
    """It says the same."""
    sdk = client(collector, agent_metadata=A)
    info = await sdk.init_agent()

    assert info is not None
    assert info == sdk.init_agent_sync()


def test_init_agent_says_why_it_failed_and_raises_nothing(
    collector: Collector, said: Callable[[], list[str]]
) -> None:
    """Delivery tries again."""
    collector.script = on_init(Answer(503))
    sdk = client(collector, agent_metadata=A)
    first, too_early = sdk.init_agent_sync(), sdk.init_agent_sync()
    sdk.trace().user_message_sync([])

    assert tally(sdk).delivered == 1
    assert (first, too_early) == (None, None)
    assert len(said()) == 1
    assert "The agent is not registered yet: registering the agent 'shop'" in said()[0]
    assert sdk.init_agent_sync() is not None


def test_init_agent_needs_a_server() -> None:
    """Locally there is nobody to tell."""
    sdk = WhyOps(agent_metadata=A)

    assert sdk.init_agent_sync() is None
    assert WhyOps(KEY, tracing="local", agent_metadata=A).init_agent_sync() is None


def test_several_threads_register_once(collector: Collector) -> None:
    """They wait for the first."""
    sdk = client(collector, agent_metadata=A)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(sdk.init_agent_sync())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(inits(collector)) == 1
    assert found == [sdk.init_agent_sync()] * 8


def test_a_child_forked_while_the_agent_is_being_registered_registers_it_itself(
    collector: Collector, tmp_path: Path
) -> None:
    """It does not wait for a thread it does not have."""
    collector.script = on_init(Hang())
    program = f"""
    import os, sys
    from whyops_trace import WhyOps
    sdk = WhyOps({KEY!r}, "shop", {A!r}, {collector.proxy_url!r}, {collector.url!r})
    sdk.trace().user_message_sync([])
    print("recorded", flush=True)
    input()
    child = os.fork()
    if not child:
        info = sdk.init_agent_sync()
        sdk.trace().user_message_sync([])
        ledger = sdk.flush_sync(30)
        os._exit(not (info and ledger["whyops"].delivered == 1))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    input()
    sys.exit(sdk.flush_sync(30)["whyops"].delivered != 1)
    """
    with start_code(program, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        collector.wait_for(lambda: len(inits(collector)) == 1)
        process.stdin.write("\n")
        process.stdin.flush()
        child = process.stdout.readline()
        collector.release()
        _, err = process.communicate("\n", timeout=60)

    assert (child, process.returncode, err) == ("0\n", 0, "")
    assert len(collector.stored) == 2


def test_a_token_in_a_prompt_is_not_told_to_the_server(collector: Collector) -> None:
    """As in any text that is recorded."""
    prompt = "Use the key ghp_" + "a1B2" * 9 + " for GitHub."
    sdk = client(collector, agent_metadata={"systemPrompt": prompt})

    assert sdk.init_agent_sync() is not None
    assert collector.inits[0]["metadata"]["systemPrompt"] == "Use the key [redacted] for GitHub."
