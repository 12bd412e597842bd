"""Settings of a client, its lifecycle, and the ledger."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from programs import run_code, stored

import whyops_trace
from whyops_trace import ConfigurationError, WhyOps, trace, traced_tool
from whyops_trace.client import default_client
from whyops_trace.exporters.base import Batch, Exporter, Outcome
from whyops_trace.exporters.memory import MemoryExporter
from whyops_trace.store import Store


@traced_tool
def double(n: int) -> int:
    return 2 * n


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("whyops-")]


def test_every_argument_can_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is not an argument is read from the environment when the client is made."""
    monkeypatch.setenv("WHYOPS_AGENT_NAME", "shop")
    monkeypatch.setenv("WHYOPS_PROXY_URL", "http://127.0.0.1:1/")
    monkeypatch.setenv("WHYOPS_ANALYSE_URL", "http://127.0.0.1:2/api/")
    monkeypatch.setenv("WHYOPS_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("WHYOPS_CONSOLE", "tree")
    settings = WhyOps().settings

    assert settings.agent_name == "shop"
    assert settings.proxy_url == "http://127.0.0.1:1"
    assert settings.analyse_url == "http://127.0.0.1:2/api"
    assert settings.home == tmp_path / "elsewhere"
    assert settings.console


def test_an_argument_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An argument given is obeyed whatever the environment says."""
    for name, value in {"AGENT_NAME": "env", "HOME": "/nowhere", "TRACING": "off", "CONSOLE": "tree"}.items():
        monkeypatch.setenv(f"WHYOPS_{name}", value)
    settings = WhyOps(agent_name="argument", home=tmp_path, tracing="local", console=False).settings

    assert (settings.agent_name, settings.home, settings.tracing, settings.console) == (
        "argument",
        tmp_path,
        "local",
        False,
    )


def test_the_positions_of_the_arguments_are_those_of_the_original() -> None:
    """Key, name, metadata, proxy URL, server URL: in that order."""
    sdk = WhyOps("", "shop", {"systemPrompt": "Help."}, "http://proxy", "http://server/api")

    assert sdk.agent_metadata == {"systemPrompt": "Help.", "tools": []}
    assert sdk.settings.proxy_url == "http://proxy"
    assert sdk.settings.analyse_url == "http://server/api"


@pytest.mark.parametrize("url", ["http://proxy", "http://proxy/", "http://proxy/v1", "http://proxy/v1/"])
def test_a_proxy_url_may_end_as_it_stands_in_a_base_url(url: str) -> None:
    """What clients of OpenAI and Anthropic need after it is added for each."""
    assert WhyOps(proxy_base_url=url).settings.proxy_url == "http://proxy"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tracing": "maybe"}, "on, off or local"),
        ({"agent_name": "x" * 256}, "at most 255"),
        ({"agent_name": 3}, "must be text"),
        ({"api_key": 3}, "must be text"),
        ({"api_key": "whyops_ключ"}, "copy it again"),
        ({"proxy_base_url": "proxy.example"}, "http:// or https://"),
        ({"agent_metadata": "Help."}, "systemPrompt"),
        ({"redact": "card"}, "['card']"),
        ({"exporters": [MemoryExporter(), MemoryExporter()]}, "same name"),
    ],
)
def test_a_setting_that_cannot_be_obeyed_is_refused(arguments: dict[str, object], words: str) -> None:
    """The error says what the setting must be."""
    with pytest.raises(ConfigurationError) as caught:
        WhyOps(**arguments)  # type: ignore[arg-type]

    assert words in str(caught.value)


@pytest.mark.parametrize("variable", ["WHYOPS_TRACING", "WHYOPS_STORE", "WHYOPS_CONSOLE"])
def test_a_variable_that_cannot_be_obeyed_is_named(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """The error names the environment variable."""
    monkeypatch.setenv(variable, "perhaps")

    with pytest.raises(ConfigurationError, match=variable):
        WhyOps()


def test_the_first_client_is_the_default() -> None:
    """A later client does not take its place."""
    first = WhyOps(agent_name="first")
    WhyOps(agent_name="second")

    assert default_client() is first


def test_with_no_client_a_local_default_is_made_at_first_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A decorated call needs no client: its trace is in the store of WHYOPS_HOME."""
    monkeypatch.setenv("WHYOPS_HOME", str(tmp_path / "home"))
    double(2)
    ledger = whyops_trace.flush_sync()
    with contextlib.closing(Store(tmp_path / "home" / "traces.db")) as store:
        traces = store.traces()

    assert ledger["local"].delivered == 2
    assert [summary.tool_calls for summary in traces] == [1]


def test_a_wrong_environment_does_not_break_a_decorated_call(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The call works, and one warning says why nothing is traced."""
    monkeypatch.setenv("WHYOPS_TRACING", "perhaps")

    assert [double(2), double(3)] == [4, 6]
    assert ["WHYOPS_TRACING" in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.anyio
async def test_flush_and_close_have_an_awaitable_face() -> None:
    """Both return the ledger."""
    async with WhyOps() as sdk:
        with sdk.trace():
            double(1)
        flushed = await sdk.flush()
        closed = await sdk.close()

    assert flushed == closed == {"local": (3, 3, 0, 0, 0, 0, {})}


def test_closing_ends_the_threads_and_a_later_event_starts_them_again(tmp_path: Path) -> None:
    """Close is the end of the threads, not of the client."""
    with WhyOps(home=tmp_path) as sdk:
        sdk.trace("t").user_message_sync([])
        sdk.flush_sync()
        running = threads()
    stopped = threads()
    sdk.trace("t").error_sync("late")
    sdk.flush_sync()
    sdk.close_sync()
    sdk.close_sync()

    assert (running, stopped, threads()) == (["whyops-local"], [], [])
    assert [event["eventType"] for event in stored(tmp_path, "t")] == [
        "user_message",
        "error",
    ]


def test_nothing_is_left_in_the_journal_after_close(tmp_path: Path) -> None:
    """Delivered records leave no file behind."""
    with WhyOps(home=tmp_path) as sdk, sdk.trace():
        double(1)

    assert list((tmp_path / "journal").rglob("*.seg")) == []


class Failing(Exporter):
    """Fails until told otherwise."""

    name = "failing"

    def __init__(self) -> None:
        self.works = threading.Event()
        self.asked = threading.Event()
        self.lines: list[bytes] = []

    def export(self, batch: Batch) -> Sequence[Outcome]:
        self.asked.set()
        if not self.works.is_set():
            raise ConnectionError("no route")
        self.lines += batch.lines
        return [Outcome.DELIVERED] * len(batch.lines)


def test_a_failing_destination_keeps_its_records_and_holds_up_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The ledger counts them as pending, one warning names the cause, and they arrive once it works."""
    exporter = Failing()
    sdk = WhyOps(home=tmp_path, exporters=[exporter])
    with sdk.trace():
        double(1)
    sdk.flush_sync(0.5)
    before = sdk.stats()
    exporter.works.set()
    after = sdk.flush_sync()

    assert before["local"].delivered == 3
    assert (before["failing"].emitted, before["failing"].pending) == (3, 3)
    assert (after["failing"].delivered, len(exporter.lines)) == (3, 3)
    assert [record.getMessage() for record in caplog.records] == [
        "Cannot deliver to failing; the records stay in the journal and are tried again: no route"
    ]


def test_what_is_not_delivered_at_close_is_said_and_delivered_by_the_next_client(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A client of the same stream takes over what the first one left."""
    sdk = WhyOps(home=tmp_path, exporters=[Failing()], exit_timeout=0.2)
    sdk.trace("t").user_message_sync([])
    sdk.close_sync()
    exporter = Failing()
    exporter.works.set()
    second = WhyOps(home=tmp_path, exporters=[exporter])
    second.trace("t").error_sync("second")
    second.flush_sync()

    assert "1 records are not delivered yet" in caplog.records[-1].getMessage()
    assert [b"user_message" in line for line in exporter.lines] == [True, False]


class Miscounting(Failing):
    """Does not say what became of each record."""

    def export(self, batch: Batch) -> Sequence[Outcome]:
        return [] if not self.works.is_set() else super().export(batch)


def test_an_exporter_that_miscounts_is_asked_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its records are not taken for delivered."""
    exporter = Miscounting()
    sdk = WhyOps(home=tmp_path, exporters=[exporter])
    sdk.trace().user_message_sync([])
    sdk.flush_sync(0.3)
    pending = sdk.stats()["failing"].pending
    exporter.works.set()

    assert pending == 1
    assert sdk.flush_sync()["failing"].delivered == 1
    assert "0 outcomes for 1 records" in caplog.text


def test_off_means_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No thread, no file, no warning; handles still work and refuse what they always refuse."""
    sdk = WhyOps(home=tmp_path / "home", tracing="off")
    with sdk.trace("t") as handle, whyops_trace.step("s") as step:
        result = double(2)
        span_id = handle.tool_call_request_sync("x", [])
        handle.tool_call_response_sync("x", span_id, [], {})
        step.set_output(1)
        with pytest.raises(whyops_trace.InvalidEventError):
            handle.llm_response_sync("", "")

    assert result == 4
    assert sdk.flush_sync() == {}
    assert (threads(), caplog.records, (tmp_path / "home").exists()) == ([], [], False)


def test_a_home_that_cannot_be_written_costs_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Records wait in memory, the calls work, and other destinations get them."""
    (tmp_path / "file").write_text("")
    memory = MemoryExporter()
    sdk = WhyOps(home=tmp_path / "file" / "home", exporters=[memory])
    with sdk.trace():
        results = [double(n) for n in range(100)]
    sdk.flush_sync(0.5)
    said = [record.getMessage() for record in caplog.records if "memory only" in record.getMessage()]

    assert results == [2 * n for n in range(100)]
    assert len(memory.events) == 201
    assert len(said) == 1
    assert "WHYOPS_HOME" in said[0]


def test_a_process_without_a_home_directory_records_in_memory(tmp_path: Path) -> None:
    """Where no home can be found the calls work and a warning says what to set."""
    done = run_code(
        """
        import os, pwd
        os.environ.pop("WHYOPS_HOME"); os.environ.pop("HOME", None)
        def nobody(uid): raise KeyError(uid)
        pwd.getpwuid = nobody
        from whyops_trace import traced_tool
        @traced_tool
        def f(): return 3
        print(f())
        """,
        tmp_path,
    )

    assert done.stdout == "3\n"
    assert done.returncode == 0
    assert "WHYOPS_HOME" in done.stderr


def test_two_clients_of_two_keys_share_no_stream(tmp_path: Path) -> None:
    """What one key recorded is never in the other's directory, and no key is on disk."""
    for key in ("whyops_one", "whyops_two"):
        WhyOps(key, "shop", home=tmp_path).trace("t").user_message_sync([])
    names = {path.parent.name for path in (tmp_path / "journal").rglob("*.seg")}
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

    assert len(names) == 2
    assert b"whyops_one" not in written


def test_the_journal_and_the_store_are_for_their_owner_only(tmp_path: Path) -> None:
    """Whatever the umask."""
    before = os.umask(0)
    try:
        sdk = WhyOps(home=tmp_path / "home")
        sdk.trace("t").user_message_sync([])
        sdk.flush_sync()
    finally:
        os.umask(before)

    assert [path for path in (tmp_path / "home").rglob("*") if path.stat().st_mode & 0o077] == []


def test_a_handle_from_the_default_client_in_another_clients_trace_belongs_to_that_client(
    tmp_path: Path,
) -> None:
    """Module-level trace() follows the trace that is open, not the default client."""
    WhyOps(home=tmp_path, exporters=[default := MemoryExporter()])
    other = MemoryExporter()
    sdk = WhyOps(home=tmp_path, agent_name="b", exporters=[other])
    with sdk.trace("outer"), trace("inner"):
        double(1)
    sdk.flush_sync()

    assert default.events == []
    assert {event["traceId"] for event in other.events} == {"inner"}


@pytest.mark.parametrize(
    ("arguments", "destinations"),
    [
        ({}, ["local"]),
        ({"api_key": "whyops_x"}, ["whyops"]),
        ({"api_key": "whyops_x", "store": True}, ["local", "whyops"]),
        ({"api_key": "whyops_x", "tracing": "local"}, ["local"]),
        ({"api_key": "whyops_x", "tracing": "local", "store": False}, []),
        ({"api_key": "whyops_x", "tracing": "off"}, []),
        ({"store": False}, []),
    ],
)
def test_a_key_decides_where_records_go(arguments: dict[str, Any], destinations: list[str]) -> None:
    """To the server instead of the local store, unless both are asked for or nothing may leave the machine."""
    assert list(WhyOps(**arguments).stats()) == destinations


def test_a_key_of_another_kind_is_named(said: Callable[[], list[str]]) -> None:
    """It is used all the same: the server has the last word."""
    sdk = WhyOps("  sk-something\n")

    assert sdk.settings.api_key == "sk-something"
    assert "whyops_ or YOPS-" in said()[0]


@pytest.fixture(autouse=True)
def _log_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "whyops_trace")


class Broken(logging.Handler):
    """Raises, as a handler of a host program may."""

    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError("no logging today")


@pytest.mark.internal_errors
def test_a_logging_handler_that_raises_breaks_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever there is to say."""
    broken = Broken()
    logging.getLogger("whyops_trace").addHandler(broken)
    monkeypatch.setenv("WHYOPS_TRACING", "perhaps")
    try:
        assert double(2) == 4
    finally:
        logging.getLogger("whyops_trace").removeHandler(broken)


def test_a_client_that_is_closed_is_forgotten_but_for_the_default(tmp_path: Path) -> None:
    """A program may make a client for each piece of work."""
    first = WhyOps(home=tmp_path)
    later = weakref.ref(WhyOps(home=tmp_path))
    for client in (first, later()):
        assert client is not None
        with client, client.trace():
            double(1)
    del client
    gc.collect()

    assert later() is None
    assert default_client() is first


class Watching(Failing):
    """Works, and notes the processes it is told have ended."""

    name = "watching"

    def __init__(self) -> None:
        super().__init__()
        self.works.set()
        self.ended: list[str] = []

    def process_ended(self, token: str) -> None:
        self.ended.append(token)


def test_the_end_of_a_process_is_told_once_however_long_another_destination_fails(tmp_path: Path) -> None:
    """What a dead process left stays in the journal for the one that fails, and is old news to the other."""
    dead = WhyOps(home=tmp_path, store=False, exporters=[Failing(), Watching()], exit_timeout=0.1)
    dead.trace("t").error_sync("left behind")
    dead.close_sync()
    token = dead.recorder.token
    watching = Watching()
    sdk = WhyOps(home=tmp_path, store=False, exporters=[Failing(), watching], exit_timeout=0.1)
    for _ in range(3):
        sdk.trace("t").error_sync("later")
        sdk.flush_sync(0.2)

    assert watching.ended == [token]
