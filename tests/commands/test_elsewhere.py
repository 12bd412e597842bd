"""Commands that take the address of a trace which another product stores, and ``whyops-trace import``."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser import record, tool_call
from click.testing import CliRunner, Result
from elsewhere import Elsewhere
from kept import of_jaeger
from programs import start
from wire import Answer

from whyops_trace._otel.span import Span, read_json
from whyops_trace.cli import main
from whyops_trace.store import Store

GOLDEN = Path(__file__).parents[1] / "otel" / "golden" / "pydantic_ai.json"
TRACE = "2e76bcc8df51e6eb91be88097bd3b58f"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory for what is temporary."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


@pytest.fixture
def home(tmp_path: Path, temporary: Path) -> Path:
    """A home that is not there yet."""
    return tmp_path / "home"


@pytest.fixture
def spans() -> list[Span]:
    """The spans of a trace: 6 turns of two agents, 5 tool calls, of which one fails."""
    return read_json(GOLDEN.read_bytes()).spans


@pytest.fixture
def jaeger(spans: list[Span]) -> Iterator[Elsewhere]:
    """Jaeger with that trace."""
    with Elsewhere({f"/api/traces/{TRACE}": of_jaeger(spans)}) as jaeger:
        yield jaeger


@pytest.fixture
def cli(home: Path) -> Callable[..., Result]:
    """Function that runs a command in this process."""
    return lambda *arguments: CliRunner().invoke(main, [*arguments, "--home", str(home)])


def records(done: Result) -> list[dict[str, Any]]:
    """Return the records that a command printed."""
    assert done.exit_code == 0, done.output
    printed: list[dict[str, Any]] = json.loads(done.stdout)
    return printed


def test_a_trace_is_shown_by_its_address_and_nothing_is_kept(
    cli: Callable[..., Result], jaeger: Elsewhere, home: Path, temporary: Path
) -> None:
    """As a tree, as its first screen and as findings, with what "why" tells; there is no home, and no other file."""
    address = f"{jaeger.root}/trace/{TRACE}"
    tree, explained, found = cli("show", address), cli("why", address), cli("check", address)

    assert "refund(parcel=7" in tree.stdout
    assert "5 tools, 6 llm, 1 error" in tree.stdout
    assert f"{TRACE}: answered: 1 call failed" in explained.stdout
    assert f"{TRACE}: nothing found." in found.stdout
    assert (tree.exit_code, explained.exit_code, found.exit_code) == (0, 0, 0)
    assert not home.exists()
    assert list(temporary.iterdir()) == []


def test_a_step_of_a_trace_elsewhere_is_printed_whole(cli: Callable[..., Result], jaeger: Elsewhere) -> None:
    """By the number that the tree has it under."""
    done = cli("show", f"{jaeger.root}/trace/{TRACE}", "--step", "3", "--json")

    assert [record["stepId"] for record in records(done)] == [3]


def test_traces_are_compared_wherever_they_are(
    cli: Callable[..., Result], jaeger: Elsewhere, spans: list[Span], home: Path
) -> None:
    """Two of other products, of one id or not, and one of them with one of this machine."""
    shorter = [span for span in spans if "ask_courier" not in span.name]
    jaeger.answers[f"/other/api/traces/{TRACE}"] = of_jaeger(shorter)
    record(home, tool_call("checkout-8841"))
    first, second = f"{jaeger.root}/trace/{TRACE}", f"{jaeger.root}/other/trace/{TRACE}"
    same, other = cli("diff", first, first, "--exit-code"), cli("diff", first, second, "--exit-code")
    own = cli("diff", "checkout-8841", first)

    assert "They are the same" in same.stdout
    assert (same.exit_code, other.exit_code, own.exit_code) == (0, 1, 0)
    assert "checkout-8841" in own.stdout


def test_traces_are_checked_together_wherever_they_are(
    cli: Callable[..., Result], jaeger: Elsewhere, home: Path
) -> None:
    """In the order of their names."""
    record(home, tool_call("checkout-8841"))
    done = cli("check", "latest", f"{jaeger.root}/trace/{TRACE}", "--json")

    assert [trace["traceId"] for trace in json.loads(done.stdout)["traces"]] == ["checkout-8841", TRACE]


def test_a_trace_elsewhere_is_exported(cli: Callable[..., Result], jaeger: Elsewhere, tmp_path: Path) -> None:
    """As a page that opens offline, or for a model."""
    page = tmp_path / "trace.html"
    address = f"{jaeger.root}/trace/{TRACE}"

    assert cli("export", address, "-o", str(page)).exit_code == 0
    assert "ask_courier" in page.read_text()
    assert "ask_courier" in cli("export", address).stdout


def test_a_trace_elsewhere_is_viewed_without_being_kept(jaeger: Elsewhere, tmp_path: Path) -> None:
    """The page comes from a server of its own, which takes its files with it when it ends, by Ctrl-C or by a signal."""
    for by in (signal.SIGINT, signal.SIGTERM):
        folder = tmp_path / str(by)
        folder.mkdir()
        program = start(
            "-m",
            "whyops_trace",
            "view",
            f"{jaeger.root}/trace/{TRACE}",
            "--no-browser",
            home=tmp_path / "home",
            TMPDIR=str(folder),
        )
        assert program.stdout is not None
        url = program.stdout.readline().strip()
        page = httpx.get(url)
        (place,) = folder.iterdir()
        mode = place.stat().st_mode & 0o777
        program.send_signal(by)
        program.communicate(timeout=30)

        assert (page.status_code, mode) == (200, 0o700)
        assert "ask_courier" in page.text
        assert list(folder.iterdir()) == []
    assert not (tmp_path / "home").exists()


def test_an_imported_trace_is_one_of_the_store(
    cli: Callable[..., Result], jaeger: Elsewhere, home: Path
) -> None:
    """Once, however often it is imported; and again after it was removed."""
    address = f"{jaeger.root}/trace/{TRACE}"
    first, second = cli("import", address), cli("import", address, "--json")
    kept = records(cli("show", TRACE, "--json"))
    cli("rm", TRACE, "--yes")
    gone = cli("show", TRACE)
    cli("import", address)

    assert first.stdout == f"Stored {TRACE}: whyops-trace show {TRACE}\n"
    assert json.loads(second.stdout) == {"traceId": TRACE}
    assert len({record["idempotencyKey"] for record in kept}) == len(kept)
    assert gone.exit_code == 1
    assert records(cli("show", TRACE, "--json")) == kept


def test_what_came_since_an_import_is_added_by_the_next_one(
    cli: Callable[..., Result], jaeger: Elsewhere, spans: list[Span]
) -> None:
    """In its place in the tree."""
    path = f"/api/traces/{TRACE}"
    whole = jaeger.answers[path]
    jaeger.answers[path] = of_jaeger([span for span in spans if "ask_courier" not in span.name])
    cli("import", jaeger.root + path)
    jaeger.answers[path] = whole
    cli("import", jaeger.root + path)

    assert "⚒ ask_courier" in cli("show", TRACE).stdout
    assert records(cli("show", TRACE, "--json")) == records(cli("show", jaeger.root + path, "--json"))


def test_a_trace_is_imported_once_though_its_spans_were_forgotten(
    cli: Callable[..., Result], jaeger: Elsewhere, home: Path
) -> None:
    """They are kept for an hour, in case more of the trace comes."""
    address = f"{jaeger.root}/trace/{TRACE}"
    cli("import", address)
    kept = records(cli("show", TRACE, "--json"))
    with closing(sqlite3.connect(home / "spans.db")) as connection, connection:
        for table in ("traces", "spans"):
            connection.execute(f"UPDATE {table} SET arrived = arrived - 7200")
    cli("import", address)
    cli("import", address)

    assert records(cli("show", TRACE, "--json")) == kept


def test_a_trace_that_goes_on_is_running(
    cli: Callable[..., Result], jaeger: Elsewhere, spans: list[Span]
) -> None:
    """As long as its last span is new and its root is not there; an old one without its root has ended."""
    some = [span for span in spans if span.parent_id]
    jaeger.answers[f"/api/traces/{TRACE}"] = of_jaeger(some)
    old = records(cli("show", f"{jaeger.root}/trace/{TRACE}", "--json"))
    later = time.time_ns() - max(span.end_ns for span in some)
    for span in some:
        span.start_ns += later
        span.end_ns += later
    jaeger.answers[f"/api/traces/{TRACE}"] = of_jaeger(some)
    new = records(cli("show", f"{jaeger.root}/trace/{TRACE}", "--json"))

    assert [record["eventType"] for record in (old[-1], new[-1])].count("trace_end") == 1
    assert old[-1]["eventType"] == "trace_end"


def test_secrets_of_a_trace_elsewhere_are_hidden(
    cli: Callable[..., Result], jaeger: Elsewhere, spans: list[Span], home: Path
) -> None:
    """As those of any trace, wherever it is shown or stored."""
    for span in spans:
        if "gen_ai.tool.call.arguments" in span.attributes:
            span.attributes["gen_ai.tool.call.arguments"] = '{"parcel": 7, "password": "hunter2"}'
    jaeger.answers[f"/api/traces/{TRACE}"] = of_jaeger(spans)
    address = f"{jaeger.root}/trace/{TRACE}"
    cli("import", address)

    assert "hunter2" not in cli("show", address, "--json").stdout
    assert all(b"hunter2" not in path.read_bytes() for path in home.iterdir() if path.is_file())


def test_a_product_and_headers_can_be_named(cli: Callable[..., Result], jaeger: Elsewhere) -> None:
    """Where the form of an address tells no product, or somebody else lets one in."""
    done = cli(
        "why", f"{jaeger.root}/trace/{TRACE}", "--from", "jaeger", "--header", "Authorization: Bearer abc"
    )

    assert done.exit_code == 0
    assert jaeger.requests[0].headers["authorization"] == "Bearer abc"


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["show", "latest", "--from", "jaeger"], "go with the address of a trace", 2),
        (["show", "latest", "--header", "A: b"], "go with the address of a trace", 2),
        (["check", "--since", "2d", "--header", "A: b"], "go with the address of a trace", 2),
        (["view", "--from", "tempo"], "go with the address of a trace", 2),
        (["show", "{root}/trace/1", "--header", "no colon"], "a name, a colon and a value", 2),
        (["show", "{root}/trace/1", "--header", "A: b\nC: d"], "a name, a colon and a value", 2),
        (["show", "{root}/trace/1", "--follow"], "fetch the address again", 2),
        (["import", "latest"], "begins with http", 2),
        (["show", "{root}/trace/1"], "has no trace '1'", 1),
        (["import", "{root}/anything"], "no address of a trace that is known", 1),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: list[str], words: str, code: int, cli: Callable[..., Result], jaeger: Elsewhere
) -> None:
    """In a sentence."""
    done = cli(*(argument.replace("{root}", jaeger.root) for argument in arguments))

    assert done.exit_code == code
    assert words in re.sub(r"\s+", " ", done.output)


def test_contents_that_a_product_does_not_keep_are_told_as_missing(
    cli: Callable[..., Result], jaeger: Elsewhere
) -> None:
    """No "no failures", and "nothing found" with that: the texts of this program are in log records."""
    spans = read_json((GOLDEN.parent / "claude_agent.json").read_bytes()).spans
    address = f"{jaeger.root}/trace/{spans[0].trace_id}"
    jaeger.answers[f"/api/traces/{spans[0].trace_id}"] = of_jaeger(spans)
    explained, found, other = cli("why", address), cli("check", address), cli("check", address, "--json")
    whole = cli("check", f"{jaeger.root}/trace/{TRACE}")

    assert "not captured" in explained.stdout
    assert "nothing found.\nNot all arguments, results and answers in it were captured" in found.stdout
    assert [trace["captured"] for trace in json.loads(other.stdout)["traces"]] == [False]
    assert "captured" not in whole.stdout


def test_a_trace_without_an_agent_is_shown_by_its_root(
    cli: Callable[..., Result], jaeger: Elsewhere, spans: list[Span]
) -> None:
    """Such as that of a web request, since it is there."""
    for span in spans:
        span.attributes, span.name, span.scope, span.events = {"http.route": "/"}, "GET /", "http", []
    jaeger.answers[f"/api/traces/{TRACE}"] = of_jaeger(spans)
    done = cli("show", f"{jaeger.root}/trace/{TRACE}")

    assert done.exit_code == 0
    assert "● GET /" in done.stdout


def test_spans_that_cannot_be_read_are_counted(
    cli: Callable[..., Result], jaeger: Elsewhere, spans: list[Span]
) -> None:
    """The others are shown."""
    answer = of_jaeger(spans)
    answer["data"][0]["spans"][-1]["startTime"] = -1
    jaeger.answers[f"/api/traces/{TRACE}"] = answer
    done = cli("show", f"{jaeger.root}/trace/{TRACE}")

    assert done.exit_code == 0
    assert "1 span cannot be read: Span" in done.stderr


def test_a_trace_that_is_not_stored_is_not_told_as_stored(
    cli: Callable[..., Result], jaeger: Elsewhere, home: Path
) -> None:
    """Another product's error leaves no home behind."""
    jaeger.answers[f"/api/traces/{TRACE}"] = Answer(500, "broken")

    assert cli("import", f"{jaeger.root}/trace/{TRACE}").exit_code == 1
    assert not home.exists()


def test_a_trace_recorded_here_keeps_its_name_beside_one_that_is_imported(
    cli: Callable[..., Result], jaeger: Elsewhere, home: Path
) -> None:
    """The other one is told by the end of its name."""
    record(home, tool_call(TRACE))
    done = cli("import", f"{jaeger.root}/trace/{TRACE}", "--json")
    with closing(Store(home / "traces.db")) as store:
        names = {trace.trace_id for trace in store.traces()}

    assert json.loads(done.stdout) == {"traceId": f"{TRACE}-otel"}
    assert names == {TRACE, f"{TRACE}-otel"}
