"""``whyops-trace doctor``: what it finds, what it says to do, and that it changes nothing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import time
from collections.abc import Callable
from email.utils import formatdate
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from collector import Collector, Reset
from journals import die, fill, make
from lines import Process, encoded
from programs import ROOT, run_code, start, start_code
from spans import span
from wire import Answer, Request

from whyops_trace import WhyOps
from whyops_trace._clock import iso
from whyops_trace._otel.events import events_of
from whyops_trace._otel.records import lines_of
from whyops_trace._otel.trace import read_trace
from whyops_trace._values.processor import Processor
from whyops_trace.cli import main
from whyops_trace.commands import diagnosis
from whyops_trace.commands.serving import running
from whyops_trace.exporters.whyops.dead_letters import DeadLetters
from whyops_trace.settings import VARIABLES
from whyops_trace.store import Store

KEY = "whyops_test"
HEALTH = {"status": "healthy", "service": "whyops-analyse"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home of its own."""
    return tmp_path / "home"


@pytest.fixture
def cli(home: Path) -> Callable[..., Result]:
    """Runs the command on the home in this process."""
    return lambda *arguments: CliRunner().invoke(main, ["doctor", *map(str, arguments), "--home", str(home)])


@pytest.fixture
def checks(cli: Callable[..., Result]) -> Callable[..., dict[str, list[dict[str, str]]]]:
    """Runs the command and returns what it found, by the name of the check; its exit code has to fit."""

    def call(*arguments: object) -> dict[str, list[dict[str, str]]]:
        result = cli("--json", *arguments)
        report = json.loads(result.stdout)
        found: dict[str, list[dict[str, str]]] = {}
        for finding in report["checks"]:
            found.setdefault(finding.pop("check"), []).append(finding)
        bad = any(finding["state"] == "problem" for some in found.values() for finding in some)

        assert report["ok"] is not bad
        assert result.exit_code == bad
        return found

    return call


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, collector: Collector) -> Collector:
    """A server of whose account the environment has a key."""
    monkeypatch.setenv("WHYOPS_API_KEY", KEY)
    monkeypatch.setenv("WHYOPS_ANALYSE_URL", collector.url)
    monkeypatch.setenv("WHYOPS_PROXY_URL", collector.proxy_url)
    return collector


def states(found: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    """Return what is not ok."""
    return {
        name: finding["state"] for name, some in found.items() for finding in some if finding["state"] != "ok"
    }


# Nothing set up


def test_all_is_fine_where_nothing_is_set_up(cli: Callable[..., Result], home: Path) -> None:
    """A newcomer learns that traces stay here; nothing is made by looking."""
    result = cli()
    rows = dict(re.findall(r"^ok +([a-z]+(?: [a-z]+)*)  +(.*?) *$", result.stdout, re.M))

    assert result.stdout.endswith("\n\nEverything is fine.\n")
    assert rows["key"] == "There is no key: traces stay on this machine."
    assert rows["tracing"] == "Traces go to the local store."
    assert rows["home"] == f"{home} is made when something is recorded."
    assert rows["store"] == "There are no traces yet; `whyops-trace demo` records one."
    assert rows["journal"] == "Nothing is left behind."
    assert rows["viewer"] == "It is not running; `whyops-trace serve` starts it."
    assert {"python", "packages", "extras", "settings", "disk", "file system"} <= rows.keys()
    assert (result.stderr, result.exit_code) == ("", 0)
    assert not home.exists()


def test_no_server_is_asked_without_a_key(
    checks: Callable[..., Any], collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even with --init, which says so."""
    monkeypatch.setenv("WHYOPS_ANALYSE_URL", collector.url)
    monkeypatch.setenv("WHYOPS_PROXY_URL", collector.proxy_url)

    assert states(checks()) == {}
    assert states(checks("--init")) == {"agent": "warning"}
    assert collector.requests == []


def test_a_home_in_use_is_fine(checks: Callable[..., Any], home: Path) -> None:
    """With what is in it."""
    with WhyOps(home=home) as sdk:
        sdk.trace("a").error_sync("no")
        sdk.flush_sync()
        found = checks()

    assert states(found) == {}
    assert re.match(
        r"1 trace, 0\.\d MiB, format \d+, the last of 20.*7 days, 512\.0 MiB", found["store"][0]["message"]
    )
    assert found["journal"][0]["message"] == "Nothing is left behind; running processes use it."


def test_an_extra_that_is_missing_says_how_to_install_it(
    checks: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is nothing wrong."""
    monkeypatch.setattr(diagnosis, "_EXTRAS", {"cli": ("click",), "prices": ("no-such-package",)})

    assert checks()["extras"] == [
        {
            "state": "ok",
            "message": "Installed: cli.",
            "advice": "To have more, install whyops-trace again with the extra prices; "
            "in a checkout: pip install '.[prices]'",
        }
    ]


def test_a_framework_that_is_installed_is_named_with_what_attaches_to_it(checks: Callable[..., Any]) -> None:
    """With its version; those that are not installed are left out."""
    told = {finding["message"] for finding in checks()["framework"]}

    assert f"openai {version('openai')}: sdk.openai(client)" in told
    assert not any(message.startswith("crewai") for message in told)


def test_the_makers_of_the_spans_of_the_latest_traces_are_named(
    home: Path, checks: Callable[..., Any]
) -> None:
    """What is attached is known in a running program alone."""
    before = checks()
    spans = [span("plan", scope="pydantic-ai"), span("run", scope="strands")]
    events = events_of(read_trace(spans), ended=True)
    processor = Processor(max_event_bytes=10_000, sample_rate=1)
    with contextlib.closing(Store(home / "traces.db")) as store:
        store.ingest(("", lines_of("t", "shop", events, processor)))

    assert "attached" not in before
    assert [finding["message"] for finding in checks()["attached"]] == [
        "Spans in the last 1 trace are of: pydantic-ai, strands."
    ]


# Settings


def test_the_settings_it_knows_are_those_of_the_documentation() -> None:
    """It warns of others that look alike."""
    page = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")

    assert set(re.findall(r"^\|(?: `\w+`)? \| `(WHYOPS_\w+)` \|", page, re.M)) == VARIABLES


def test_it_tells_which_traces_remote_destinations_get(
    checks: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In words."""
    monkeypatch.setenv("WHYOPS_TAIL_SAMPLING", "0.05,slower_than=30,costlier_than=0.5")
    told = [finding["message"] for some in checks().values() for finding in some]

    assert (
        "Remote destinations get failed traces, those slower than 30 s, those costlier than $0.5, "
        "flagged ones, and 5 % of the others." in told
    )


def test_a_choice_by_cost_without_prices_is_a_warning(tmp_path: Path) -> None:
    """No trace would be sent for its cost."""
    done = run_code(
        "import sys; from importlib import metadata; real = metadata.version\n"
        "def version(name):\n"
        "    if name == 'genai-prices': raise metadata.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "metadata.version = version\n"
        "from whyops_trace.__main__ import main; sys.argv = ['whyops-trace', 'doctor', '--json']; main()",
        home=tmp_path, WHYOPS_TAIL_SAMPLING="0.1,costlier_than=2",
    )  # fmt: skip
    checks = json.loads(done.stdout)["checks"]

    assert [check["state"] for check in checks if check["check"] == "sampling"] == ["ok", "warning"]


def test_a_receiver_of_spans_is_where_traces_go(
    checks: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though there is neither a store nor a key."""
    monkeypatch.setenv("WHYOPS_STORE", "off")
    monkeypatch.setenv("WHYOPS_OTLP", "http://127.0.0.1:1")
    told = {finding["message"] for some in checks().values() for finding in some}

    assert "Traces go to http://127.0.0.1:1/v1/traces." in told
    assert "There is no key: traces go to no WhyOps server." in told


@pytest.mark.parametrize(
    ("variables", "expected", "message"),
    [
        ({"WHYOPS_TRACING": "off"}, {"tracing": "warning"}, "WHYOPS_TRACING=off: nothing is recorded."),
        ({"WHYOPS_STORE": "off"}, {"tracing": "warning"}, "WHYOPS_STORE=off and no key: traces go nowhere."),
        (
            {"WHYOPS_TRACING": "local", "WHYOPS_API_KEY": KEY},
            {"tracing": "warning"},
            "WHYOPS_TRACING=local: nothing leaves this machine, though there is a key.",
        ),
        (
            {"WHYOPS_SAMPLE_RATE": "0.25"},
            {"sampling": "warning"},
            "WHYOPS_SAMPLE_RATE=0.25: 75 % of the traces are not recorded.",
        ),
        (
            {"WHYOPS_SAMPEL_RATE": "0.25"},
            {"settings": "warning"},
            "The environment has WHYOPS_SAMPEL_RATE, which is no setting.",
        ),
        (
            {"WHYOPS_SAMPLE_RATE": "half"},
            {"settings": "problem"},
            "sample_rate (WHYOPS_SAMPLE_RATE) is 'half'; it must be a number from 0 to 1, such as 0.1.",
        ),
        (
            {"WHYOPS_API_KEY": "whyops_\u201ctest\u201d"},
            {"settings": "problem"},
            "api_key (WHYOPS_API_KEY) has characters that no key has; copy it again.",
        ),
    ],
)
def test_what_is_switched_off_and_by_what(
    checks: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    expected: dict[str, str],
    message: str,
) -> None:
    """With what to do."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = checks()
    told = [finding for some in found.values() for finding in some if finding["state"] != "ok"]

    assert states(found) == expected
    assert [finding["message"] for finding in told] == [message]
    assert all(finding["advice"] for finding in told)


def test_the_variables_that_are_set_are_named(
    checks: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without their values."""
    monkeypatch.setenv("WHYOPS_AGENT_NAME", "shop")
    monkeypatch.setenv("WHYOPS_CUSTOMER", "something else's")

    assert checks()["settings"][0] == {
        "state": "ok",
        "message": "From the environment: WHYOPS_AGENT_NAME, WHYOPS_ANALYSE_URL, WHYOPS_HOME, WHYOPS_PROXY_URL."
        " Arguments of WhyOps(...) win over the environment.",
        "advice": "",
    }


# The server


def test_a_server_that_takes_the_key(checks: Callable[..., Any], account: Collector) -> None:
    """It is only asked: nothing is stored, nothing registered."""
    found = checks()

    assert states(found) == {}
    assert re.fullmatch(rf"{account.url} is healthy; it answered in .*\.", found["server"][0]["message"])
    assert found["account"][0]["message"] == "The server takes the key."
    assert found["proxy"][0]["message"] == f"{account.proxy_url} can be reached."
    assert found["tracing"][0]["message"] == f"Traces go to {account.url}."
    assert {request.method for request in account.requests} == {"GET"}


def test_an_agent_is_registered_on_request(checks: Callable[..., Any], account: Collector) -> None:
    """The same each time, so that it takes one place of those an account has."""
    found = checks("--init"), checks("--init")

    assert [states(each) for each in found] == [{}, {}]
    assert found[0]["agent"][0]["message"] == "The server registered the agent whyops-trace-doctor."
    assert [init["agentName"] for init in account.inits] == ["whyops-trace-doctor"] * 2
    assert len(account.agents) == 1


def test_an_account_that_takes_no_more_agents(checks: Callable[..., Any], account: Collector) -> None:
    """The server's words are shown."""
    account.max_agents = 0
    found = checks("--init")

    assert states(found) == {"agent": "problem"}
    assert found["agent"][0]["message"].startswith("The server does not register an agent: ")


def test_a_key_that_is_refused(
    checks: Callable[..., Any], account: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key itself is never printed."""
    monkeypatch.setenv("WHYOPS_API_KEY", "whyops_s3cr3t")
    found = checks("--init")

    assert states(found) == {"account": "problem", "agent": "problem"}
    assert "it refuses the API key (401)" in found["account"][0]["message"]
    assert "s3cr3t" not in json.dumps(found)


def test_a_key_of_another_form(
    cli: Callable[..., Result], account: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning says how keys begin."""
    monkeypatch.setenv("WHYOPS_API_KEY", "sk-s3cr3t")
    result = cli()

    assert re.search(
        r"^warning +key +WHYOPS_API_KEY is set, but does not begin with whyops_", result.stdout, re.M
    )
    assert "s3cr3t" not in result.output


def test_a_server_that_cannot_be_reached(checks: Callable[..., Any], account: Collector) -> None:
    """It is said once, and what becomes of the events; the proxy is not everyone's."""
    account.stop()
    found = checks("--init")

    assert states(found) == {"server": "problem", "proxy": "warning"}
    assert found["server"][0]["message"].startswith(f"{account.url} cannot be reached: ")
    assert "events wait in the journal meanwhile" in found["server"][0]["advice"]


@pytest.mark.parametrize(
    ("answer", "state", "message"),
    [
        (Answer(404, {"error": "Not Found"}), "problem", "Check analyse_base_url"),
        (Answer(302, "", headers={"Location": "/login"}), "problem", "redirects (302)"),
        (Answer(200, "<html>", content_type="text/html"), "problem", "Check analyse_base_url"),
        (Answer(200, {"status": 7}), "problem", "Check analyse_base_url"),
        (Answer(200, {"status": "degraded\x1b[31m"}), "warning", "says that it is degraded\\x1b[31m."),
        (Reset(), "problem", "cannot be reached"),
    ],
)
def test_a_server_that_is_none(
    checks: Callable[..., Any], account: Collector, answer: Any, state: str, message: str
) -> None:
    """Or one that is not well."""
    account.script = lambda request: answer if request.path == "/api/health" else None
    found = checks()

    assert states(found) == {"server": state}
    assert message in found["server"][0]["message"]


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Answer(503, "busy"), "warning"),
        (Answer(429, {"error": "slow down"}), "warning"),
        (Answer(200, "[]"), "problem"),
        (Reset(), "warning"),
    ],
)
def test_an_account_that_cannot_be_looked_at(
    checks: Callable[..., Any], account: Collector, answer: Any, state: str
) -> None:
    """What may pass by itself is a warning."""
    account.script = lambda request: answer if request.path == "/api/events" else None

    assert states(checks()) == {"account": state}


def test_an_agent_that_gets_no_answer(checks: Callable[..., Any], account: Collector) -> None:
    """Registering is tried once."""
    account.script = lambda request: Reset() if request.method == "POST" else None

    assert states(checks("--init")) == {"agent": "problem"}


@pytest.mark.parametrize(
    ("ahead", "state", "message"),
    [
        (0, "ok", r"The clock agrees with the server's\."),
        (3600, "warning", r"The clock is (1 h 00 m|59 m 59 s) ahead of the server's\."),
        (-3600, "warning", r"The clock is (1 h 00 m|59 m 59 s) behind the server's\."),
    ],
)
def test_a_clock_that_is_wrong(
    checks: Callable[..., Any], account: Collector, ahead: int, state: str, message: str
) -> None:
    """By the date of the server's answer."""

    def tell(request: Request) -> Answer | None:
        date = formatdate(time.time() - ahead, usegmt=True)
        return Answer(200, HEALTH, headers={"Date": date}) if request.path == "/api/health" else None

    account.script = tell
    (clock,) = checks()["clock"]

    assert clock["state"] == state
    assert re.fullmatch(message, clock["message"])


@pytest.mark.parametrize("date", ["soon", "Fri, 99 Nov 2026 10:00:00 GMT", ""])
def test_a_date_that_is_none_says_nothing(checks: Callable[..., Any], account: Collector, date: str) -> None:
    """Whoever stands before the server may send anything."""
    health = Answer(200, HEALTH, headers={"Date": date})
    account.script = lambda request: health if request.path == "/api/health" else None

    assert "clock" not in checks()


# The home


def test_a_home_that_is_no_directory(home: Path, checks: Callable[..., Any]) -> None:
    """A file stands where a directory above it should be; nothing can be recorded."""
    home.parent.joinpath("file").write_text("")
    result = CliRunner().invoke(main, ["doctor", "--json", "--home", str(home.parent / "file" / "home")])
    (problem,) = [each for each in json.loads(result.stdout)["checks"] if each["state"] == "problem"]

    assert problem["check"] == "home"
    assert problem["message"] == f"{home.parent / 'file'} is no directory."
    assert result.exit_code == 1


def test_a_home_that_may_not_be_written(
    checks: Callable[..., Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The superuser may write anywhere, so the system's answer is given here."""
    home.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    found = checks()

    assert states(found) == {"home": "problem"}
    assert found["home"][0]["message"].startswith(f"{home} can only be read by this user")


@pytest.mark.parametrize(("limit", "state"), [("_LITTLE_ROOM", "warning"), ("_NO_ROOM", "problem")])
def test_a_disk_that_is_full(
    checks: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, limit: str, state: str
) -> None:
    """Little room is a warning, none a problem."""
    monkeypatch.setattr(diagnosis, "_LITTLE_ROOM", 1 << 60)
    monkeypatch.setattr(diagnosis, limit, 1 << 60)

    assert states(checks()) == {"disk": state}


@pytest.mark.parametrize(("platform", "expected"), [("linux", {"file system": "warning"}), ("darwin", {})])
def test_a_file_system_that_takes_no_map(
    checks: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, platform: str, expected: dict[str, str]
) -> None:
    """It works, and slower; elsewhere than on Linux there is nothing to do about it."""
    monkeypatch.setattr(diagnosis, "MAPPABLE", frozenset())
    monkeypatch.setattr("sys.platform", platform)

    assert states(checks()) == expected


def test_a_clock_that_runs_backwards(checks: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """No platform that Python runs on has one, so it is told so."""
    info = time.get_clock_info("perf_counter")
    info.monotonic = False
    monkeypatch.setattr(time, "get_clock_info", lambda name: info)

    assert states(checks()) == {"clock": "problem"}


# The store and the journal


@pytest.mark.parametrize("content", [b"junk" * 1000, None])
def test_a_store_that_is_none(checks: Callable[..., Any], home: Path, content: bytes | None) -> None:
    """A damaged file or a directory is set aside, and said until it is deleted."""
    home.mkdir(0o700)
    file = home / "traces.db"
    file.mkdir() if content is None else file.write_bytes(content)
    found = checks()

    assert states(found) == {"store": "problem"}
    assert str(file) in found["store"][0]["message"]
    aside = home / "traces.db.bad"
    assert aside.is_dir() if content is None else aside.read_bytes() == content
    assert states(checks()) == {"store": "warning"}
    aside.rmdir() if content is None else aside.unlink()
    assert states(checks()) == {}


def test_a_store_that_others_may_read(checks: Callable[..., Any], home: Path) -> None:
    """Traces hold what users wrote."""
    Store(home / "traces.db").ingest(("9f2c41aa01be", [Process().line("error", 1)]))
    (home / "traces.db").chmod(0o644)
    found = checks()

    assert states(found) == {"store": "warning"}
    assert (
        found["store"][0]["message"] == f"Others could read {home / 'traces.db'}; it is closed to them again."
    )
    assert stat.S_IMODE((home / "traces.db").stat().st_mode) == 0o600
    assert states(checks()) == {}


def test_a_home_that_others_may_read(checks: Callable[..., Any], home: Path) -> None:
    """Traces hold what users wrote; so do the words of the search and what a server refused."""
    Store(home / "traces.db").ingest(("9f2c41aa01be", [Process().line("error", 1)]))
    home.chmod(0o755)
    (home / "rejected.ndjson").touch(0o644)
    found = checks()

    assert states(found) == {"home": "warning"}
    assert [each["advice"] for each in found["home"][1:]] == [
        f"chmod 700 {home}", f"chmod 600 {home / 'rejected.ndjson'}",
    ]  # fmt: skip


def test_a_trace_of_the_future(checks: Callable[..., Any], home: Path) -> None:
    """The clock was wrong then or is wrong now."""
    later = iso(time.time_ns() + 3600 * 10**9)
    store = Store(home / "traces.db")
    store.ingest(("9f2c41aa01be", [encoded(Process().event("error", 1, timestamp=later))]))
    store.close()

    assert states(checks()) == {"clock": "warning"}


def test_what_was_left_behind(checks: Callable[..., Any], home: Path) -> None:
    """For the store a command takes it in, for a server it may wait for its key."""
    journal = make(home)
    fill(journal, range(3))
    die(journal)
    first, second = checks()["journal"]

    assert first == {
        "state": "warning",
        "message": "3 records of shop wait for local.",
        "advice": "`whyops-trace journal flush` delivers them.",
    }
    assert (second["message"], second["advice"]) == (
        "3 records of shop wait for whyops.",
        "They wait because WHYOPS_API_KEY is not set.",
    )
    assert not (home / "traces.db").exists()


def test_a_journal_that_is_nearly_full(
    checks: Callable[..., Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Soon the oldest records would be dropped."""
    monkeypatch.setenv("WHYOPS_MAX_JOURNAL_BYTES", "1_500_000")
    journal = make(home, budget=1_500_000)
    fill(journal, range(20), size=60_000)
    found = checks()["journal"]
    journal.close()

    assert [finding["state"] for finding in found] == ["warning"]
    assert re.fullmatch(r"The journal of shop takes 1\.\d MiB of 1\.4 MiB\.", found[0]["message"])


def test_a_segment_that_cannot_be_read(checks: Callable[..., Any], home: Path) -> None:
    """It is there until somebody deletes it."""
    (home / "journal" / "shop").mkdir(parents=True)
    (home / "journal" / "shop" / "9f2c41aa01be-1.seg").write_bytes(b"junk" * 2000)
    (finding,) = checks()["journal"]

    assert finding == {
        "state": "warning",
        "message": "1 file of the journal is damaged or of another version, and set aside.",
        "advice": "`whyops-trace journal purge --all` deletes it.",
    }


def test_a_journal_that_cannot_be_looked_at(checks: Callable[..., Any], home: Path) -> None:
    """It is a problem, and no traceback."""
    home.mkdir(0o700)
    (home / "rejected.ndjson").mkdir(0o700)

    assert states(checks()) == {"journal": "problem"}


def test_what_a_server_refused(checks: Callable[..., Any], home: Path) -> None:
    """How many events, and where."""
    letters = DeadLetters(home / "rejected.ndjson")
    for _ in range(2):
        letters.add(b"{}", "no")
    found = checks()

    assert states(found) == {"refused events": "warning"}
    assert found["refused events"][0]["message"] == (
        f"A server refused 2 events: {home / 'rejected.ndjson'} has its words."
    )


def test_what_a_server_did_not_keep(checks: Callable[..., Any], account: Collector, home: Path) -> None:
    """How many events of how many processes, since when, and what to do, with the id of the agent."""
    account.sampling_rate = 0.0
    for count in (2, 3):
        sdk = WhyOps(agent_name="shop", agent_metadata={"systemPrompt": "Sell.", "tools": []}, home=home)
        for number in range(count):
            sdk.trace(f"t{count}{number}").error_sync("said")
        sdk.close_sync(30)
    (known,) = account.agents.values()
    others = checks()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WHYOPS_AGENT_NAME", "shop")
        (finding,) = checks()["sampling"]

    assert "sampling" not in others
    assert finding["state"] == "warning"
    assert (
        finding["message"]
        == f"The server has not kept 5 events of the agent 'shop' since {iso(time.time_ns())[:10]}."
    )
    assert f"/entities/{known.id}/sampling-rate" in finding["advice"]


# The viewer


def test_a_viewer_that_runs(checks: Callable[..., Any], home: Path) -> None:
    """With its address, but not at another home; one that was killed is not there any more."""
    other = home.with_name("other")
    other.mkdir()
    with start("-m", "whyops_trace", "serve", "--port", "0", "--json", home=home) as server:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        runs = checks()["viewer"][0]["message"]
        (other / "serve.json").write_bytes((home / "serve.json").read_bytes())
        elsewhere = running(other)
        server.kill()
        server.communicate(timeout=60)
    ended = checks()["viewer"][0]["message"]

    assert runs == f"It shows this home at {url}."
    assert elsewhere is None
    assert ended == "It is not running; `whyops-trace serve` starts it."


@pytest.mark.parametrize(
    "note", ["", "[]", '{"url": 7}', '{"url": "http://[::1"}', '{"url": "http://127.0.0.1:1"}', "[" * 100_000]
)
def test_a_note_that_is_none(checks: Callable[..., Any], home: Path, note: str) -> None:
    """Whatever is in the file."""
    home.mkdir()
    (home / "serve.json").write_text(note)

    assert checks()["viewer"][0]["message"] == "It is not running; `whyops-trace serve` starts it."


# The command


def test_problems_and_warnings_are_counted(
    cli: Callable[..., Result], account: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end; advice stands below what it belongs to."""
    account.stop()
    monkeypatch.setenv("WHYOPS_SAMPLE_RATE", "0.5")
    result = cli()
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    place = next(number for number, line in enumerate(lines) if line.startswith("problem  server"))

    assert lines[-1] == "1 problem, 2 warnings."
    assert lines[place + 1].strip().startswith("Check WHYOPS_ANALYSE_URL")
    assert result.exit_code == 1


def test_names_of_agents_do_nothing_to_the_terminal(home: Path) -> None:
    """Nor does anything else that others wrote; the output is ASCII as JSON."""
    program = """
        from whyops_trace import WhyOps

        sdk = WhyOps("whyops_test", agent_name="x\\x1b[31m\\u202e[bold]")
        sdk.trace("a").error_sync("no")
        sdk.close_sync(0)
    """
    with start_code(program, home) as agent:
        agent.communicate(timeout=60)
    shown, as_json = (
        CliRunner().invoke(main, ["doctor", *options, "--home", str(home)]).stdout
        for options in ([], ["--json"])
    )

    assert "\\x1b[31m\\u202e[bold] wait for whyops" in shown
    assert all(character == "\n" or character.isprintable() for character in shown)
    assert as_json.isascii()


def test_a_wrong_usage_is_exit_code_2(cli: Callable[..., Result]) -> None:
    """As with every other command."""
    assert cli("--nope").exit_code == 2
    assert cli("extra").exit_code == 2
