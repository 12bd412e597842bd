"""``whyops-trace rm --user``: nothing of a user is left in the home, all of the others is, and what is left is said."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from collector import Collector
from journals import die
from lines import Process, encoded
from wire import Answer

from whyops_trace import TailSampling, WhyOps
from whyops_trace._journal.journal import Journal
from whyops_trace.cli import main
from whyops_trace.client import forget_clients
from whyops_trace.exporters.base import Batch, Exporter, Outcome
from whyops_trace.exporters.whyops.dead_letters import DeadLetters
from whyops_trace.server.query import Term
from whyops_trace.server.search import Index
from whyops_trace.store import Store

TOKEN = "9f2c41aa01be"
#: The user to erase, and what only this user said.
USER = "mia@exämple.org"
SECRET = "the parcel with the violin"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home of its own."""
    return tmp_path / "home"


@pytest.fixture
def cli(home: Path) -> Callable[..., Result]:
    """Runs the command on the home in this process; *answer* is typed where it asks."""

    def call(*arguments: str, answer: str = "") -> Result:
        return CliRunner().invoke(main, ["rm", "--user", USER, *arguments, "--home", str(home)], input=answer)

    return call


def said(trace: str, user: str | None, text: str, process: Process | None = None) -> list[bytes]:
    """Return records of a trace, of which the second alone names its user."""
    process = process or Process(trace=trace)
    content = {"messages": [{"role": "user", "content": f"{text} {n}"} for n in range(3)]}
    events = [process.event("user_message", n, content=content) for n in (1, 2, 3)]
    if user is not None:
        events[1]["externalUserId"] = user
    return [encoded(event) for event in events]


class Remote(Exporter):
    """A remote destination, which takes all that it gets."""

    name = "away"
    remote = True

    def export(self, batch: Batch) -> list[Outcome]:
        return [Outcome.DELIVERED] * len(batch.lines)


def put(home: Path, *batches: list[bytes]) -> None:
    with contextlib.closing(Store(home / "traces.db")) as store:
        for batch in batches:
            store.ingest((TOKEN, batch))


def journal(home: Path, stream: str, *traces: tuple[str, str, str]) -> Journal:
    """Return a journal that waits for a server."""
    made = Journal(home / "journal" / stream, stream=stream, agent="shop", destinations=["local", "whyops"])
    for trace, user, text in traces:
        for line in said(trace, user, text, Process(made.token, trace)):
            made.append(line + b"\n")
    return made


def holding(home: Path, *texts: str) -> list[str]:
    """Return the files of a home in which one of some texts is."""
    kept = [path for path in sorted(home.rglob("*")) if path.is_file()]
    return [path.name for path in kept if any(text.encode() in path.read_bytes() for text in texts)]


def words(home: Path, term: str) -> list[str]:
    with contextlib.closing(Store(home / "traces.db")) as store:
        index = Index(home, store)
        found = index.find([Term(term)], 30.0).trace_ids
        index.close()
    return found


def test_nothing_of_a_user_is_left(cli: Callable[..., Result], home: Path) -> None:
    """In the store and its log, the journal, the refused events and the words of the search."""
    put(home, said("hers", USER, SECRET), said("his", "tom", "a drum"), said("nobody's", None, "a bell"))
    put(home, said("hers too", USER, f"{SECRET} again"))
    die(journal(home, "a", ("left", USER, SECRET), ("kept", "tom", "a flute"), ("hers", "tom", SECRET)))
    die(journal(home, "b", ("kept too", "tom", "a horn")))
    shutil.copy(next((home / "journal" / "a").glob("*.seg")), home / "journal" / "a" / "damaged.seg.bad")
    letters = DeadLetters(home / "rejected.ndjson")
    for line in [*said("hers", None, SECRET), *said("his", "tom", "a drum")]:
        letters.add(line, "400: no")
    found = words(home, "violin")
    before = holding(home, SECRET, USER)
    result = cli("--yes", "--json")
    report = json.loads(result.stdout)

    assert sorted(found) == ["hers", "hers too"]
    assert {"traces.db", "rejected.ndjson", "damaged.seg.bad"} < set(before)
    assert holding(home, SECRET, USER, "violin") == []
    assert words(home, "violin") == []
    assert sorted(report["deleted"]) == ["hers", "hers too", "left"]
    assert report["journal"] == {"erased": 12, "inUse": 0}
    assert report["refused"] == {"erased": 3, "inUse": 0}
    assert report["server"] == {"url": "", "traces": None}
    with contextlib.closing(Store(home / "traces.db")) as store:
        assert sorted(trace.trace_id for trace in store.traces()) == ["his", "kept", "kept too", "nobody's"]
        assert store.events("his") == [json.loads(line) for line in said("his", "tom", "a drum")]


def test_nothing_of_a_user_is_left_in_the_waiting_room(cli: Callable[..., Result], home: Path) -> None:
    """Neither what waits, nor what was sent, nor what was left out; the records of others still wait."""
    with WhyOps(
        agent_name="shop", home=home, exporters=[Remote()], tail_sampling=TailSampling(share=0)
    ) as sdk:
        for trace_id, user, text in (("hers", USER, SECRET), ("his", "tom", "a drum")):
            for outcome in ("sent", "left out", "open"):
                trace = sdk.trace(f"{trace_id} {outcome}", external_user_id=user)
                with trace if outcome == "left out" else contextlib.nullcontext():
                    trace.llm_response_sync("m", "p", text)
                    if outcome == "sent":
                        trace.error_sync("no")
                    if outcome == "open":
                        trace.tool_call_request_sync("look", [{"name": "look", "arguments": {}}])
    before = holding(home, SECRET, USER)
    report = json.loads(cli("--yes", "--json").stdout)

    assert "waiting.db" in before
    assert report["waiting"]["erased"] == 4
    assert holding(home, SECRET, USER) == []
    assert "waiting.db" in holding(home, "a drum")


def test_what_others_recorded_is_still_delivered(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """Once each, and what the server has already is not sent again."""
    collector.stop()
    sdk = WhyOps(
        "whyops_test", "shop", home=home, exit_timeout=0.0, analyse_base_url=collector.url,
        proxy_base_url=collector.proxy_url,
    )  # fmt: skip
    for number in range(20):
        for user in (USER, "tom"):
            trace = sdk.trace(f"{user}-{number}", external_user_id=user)
            trace.error_sync(f"{user} {number}")
    sdk.close_sync()
    forget_clients()
    result = cli("--yes")
    collector.start()
    with WhyOps(
        "whyops_test", "shop", home=home, analyse_base_url=collector.url, proxy_base_url=collector.proxy_url
    ) as later:
        later.trace("later").error_sync("later")
        later.flush_sync(30)
    messages = [row["content"]["message"] for n in range(20) for row in collector.trace(f"tom-{n}")]

    assert result.exit_code == 0
    assert "Erased 0 traces and 20 other records" in result.stdout
    assert messages == [f"tom {n}" for n in range(20)]
    assert [collector.trace(f"{USER}-{n}") for n in range(20)] == [[]] * 20


def test_what_is_left_elsewhere_is_said(
    cli: Callable[..., Result], home: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the journal of a process that runs, in a store that was set aside, and at the server of the key."""
    put(home, said("hers", USER, SECRET))
    running = journal(home, "a", ("left", USER, SECRET))
    (home / "traces.db.bad").write_bytes(b"damaged")
    there = {"threads": [], "pagination": {"total": 4}}
    collector.script = lambda request: (
        Answer(200, json.dumps(there).encode()) if "/threads" in request.path else None
    )
    monkeypatch.setenv("WHYOPS_API_KEY", "whyops_test")
    monkeypatch.setenv("WHYOPS_ANALYSE_URL", collector.url)
    result = cli("--yes")
    running.close()

    assert result.exit_code == 0
    assert result.stdout.splitlines()[-4:-1] == [
        result.stdout.splitlines()[-4],
        "Running processes still have 3 records of this user: repeat this when they have ended.",
        f"{home / 'traces.db.bad'}, a damaged store, may have more: delete it.",
    ]
    assert result.stdout.splitlines()[-1] == (
        f"{collector.url} still has 4 traces of this user: delete them there."
    )


def test_a_server_that_does_not_answer_is_said(
    cli: Callable[..., Result], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows then what it has."""
    put(home, said("hers", USER, SECRET))
    monkeypatch.setenv("WHYOPS_API_KEY", "whyops_test")

    assert "did not say what it still has of this user" in cli("--yes").stdout


def test_nothing_is_erased_without_a_yes(cli: Callable[..., Result], home: Path) -> None:
    """The question comes after the traces."""
    put(home, said("hers", USER, SECRET))
    die(journal(home, "a", ("left", "tom", "x")))
    result = cli(answer="n\n")

    assert result.exit_code == 1
    assert "hers" in result.stdout
    assert holding(home, USER) == ["traces.db"]


def test_a_reader_that_keeps_the_log_is_said(cli: Callable[..., Result], home: Path) -> None:
    """The traces are deleted, and the error says what to do for their bytes."""
    put(home, said("hers", USER, SECRET))
    with contextlib.closing(sqlite3.connect(home / "traces.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM traces").fetchone()
        result = cli("--yes")

    assert result.exit_code == 1
    assert "another process reads" in result.stderr
    assert cli("--yes").exit_code == 0
    assert holding(home, USER, SECRET) == []
