"""Whatever is wrong with the disk, the program does not notice, and what can be delivered is."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from collector import Collector
from programs import environment, may_mount, stored

from whyops_trace import WhyOps
from whyops_trace._journal.header import PAGE
from whyops_trace.client import forget_clients
from whyops_trace.exceptions import ConfigurationError

KEY = "whyops_test"
#: The kernel's name for nobody.
NOBODY = 65534


@pytest.fixture
def server() -> Iterator[Collector]:
    """A server that works, until a test says otherwise."""
    with Collector() as collector:
        yield collector
        forget_clients()


def client(server: Collector, home: Path, **options: Any) -> WhyOps:
    urls = {"analyse_base_url": server.url, "proxy_base_url": server.proxy_url}
    return WhyOps(**{"api_key": KEY, "agent_name": "shop", "home": home, **urls, **options})


@contextlib.contextmanager
def agent(
    code: str, server: Collector, home: Path, *, before: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    """Lend a process of an agent, begun through a command that puts it where it is to run."""
    urls = {"WHYOPS_ANALYSE_URL": server.url, "WHYOPS_PROXY_URL": server.proxy_url}
    with subprocess.Popen(
        [*before, sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env=environment(home, WHYOPS_API_KEY=KEY, WHYOPS_AGENT_NAME="shop", **urls),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def on_a_disk_of(size: str, home: Path) -> tuple[str, ...]:
    """Return the command that gives a program a small disk of its own for a home, or skip the test."""
    if not may_mount():
        pytest.skip("this machine does not let `unshare --map-root-user --mount` mount a tmpfs")
    home.mkdir(exist_ok=True)
    script = f'mount -t tmpfs -o {size} none "$0" && exec "$@"'
    return ("unshare", "--map-root-user", "--mount", "sh", "-c", script, str(home))


def as_an_ordinary_user() -> tuple[str, ...]:
    """Return the command that makes permissions count for a program, though it is root's, or skip the test."""
    if os.geteuid():
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("permissions do not bind root, and there is no setpriv to change that")
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner")


def told(rows: list[dict[str, Any]]) -> list[str]:
    return [row["content"]["message"] for row in rows]


# Full


def test_a_disk_that_is_full_and_gets_room_again(server: Collector, tmp_path: Path) -> None:
    """The server gets everything at once, the store as soon as there is room; records use the disk again then."""
    with agent(
        """
        import contextlib, os, time
        from pathlib import Path
        from whyops_trace import WhyOps
        from whyops_trace.store import Store
        sdk = WhyOps(store=True)
        home = Path(os.environ["WHYOPS_HOME"])
        ballast = open(home / "ballast", "wb", buffering=0)
        with contextlib.suppress(OSError):
            while ballast.write(bytes(65536)):
                pass
        handle = sdk.trace("t")
        for n in range(100):
            handle.error_sync(str(n))
        sdk._deliveries[1].flush(10**9)
        sdk._deliveries[0].flush(time.monotonic() + 1)  # in vain, so that the store has said that it is full
        ledger = sdk.stats()
        print(ledger["whyops"].delivered, ledger["local"].pending, ledger["local"].delivered)
        ballast.truncate(0)
        ballast.close()
        for n in range(100, 2000):
            handle.error_sync(str(n))
        print(sdk._journal.segments[-1].path is not None)
        ledger = sdk.flush_sync(30)
        print(ledger["whyops"].delivered, ledger["local"].delivered)
        sdk.close_sync()
        with contextlib.closing(Store(home / "traces.db")) as store:
            print(*(event["content"]["message"] for event in store.events("t")))
        """,
        server,
        tmp_path / "home",
        before=on_a_disk_of("size=16m", tmp_path / "home"),
    ) as process:
        out, err = process.communicate(timeout=60)
    first, on_disk, last, messages = out.splitlines()

    assert process.returncode == 0
    assert (first, last, on_disk) == ("100 100 0", "2000 2000", "True")
    assert messages.split() == told(server.trace("t")) == [str(n) for n in range(2000)]
    assert err.count("Recording in memory only") == 1
    assert "Traceback" not in err
    assert len(err.splitlines()) == 3  # memory only; the store cannot be written; nor what the server says


def test_a_disk_that_fills_up_while_the_server_is_down(server: Collector, tmp_path: Path) -> None:
    """What no longer fits on the disk waits in memory, and all arrives in order when the server is back."""
    server.stop()
    with agent(
        """
        import sys
        from whyops_trace import WhyOps
        sdk = WhyOps()
        handle = sdk.trace("t")
        for n in range(3000):
            handle.error_sync(str(n), stack="x" * 800)
        kept = [segment.path is not None for segment in sdk._journal.segments]
        print(any(kept), all(kept), sdk.stats()["whyops"].pending, flush=True)
        sys.stdin.readline()
        print(sdk.flush_sync(60)["whyops"].delivered)
        """,
        server,
        tmp_path / "home",
        before=on_a_disk_of("size=1m", tmp_path / "home"),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said = process.stdout.readline()
        server.start()
        out, err = process.communicate("go on\n", timeout=90)

    assert (process.returncode, said, out) == (0, "True False 3000\n", "3000\n")
    assert told(server.trace("t")) == [str(n) for n in range(3000)]
    assert "Traceback" not in err
    assert "dropped" not in err


# Homes that cannot be written

HOMES = ["below a file", "read-only", "without access", "of another user", "on a read-only disk"]


@pytest.mark.parametrize("kind", HOMES)
def test_a_home_that_cannot_be_written(server: Collector, tmp_path: Path, kind: str) -> None:
    """The program runs as ever, the server gets everything from memory, and one warning says what to do."""
    home = tmp_path / "home"
    before: tuple[str, ...] = ()
    if kind == "below a file":
        home.write_text("")
        home /= "home"
    elif kind == "on a read-only disk":
        before = on_a_disk_of("ro", home)
    else:
        before = as_an_ordinary_user()
        home.mkdir(mode={"read-only": 0o500, "without access": 0o000, "of another user": 0o700}[kind])
        if kind == "of another user":
            if os.geteuid():
                pytest.skip("only root can give a home to another user")
            os.chown(home, NOBODY, NOBODY)
    with agent(
        """
        from whyops_trace import WhyOps, traced_tool
        sdk = WhyOps()
        @traced_tool
        def f(n):
            return n
        for n in range(3):
            with sdk.trace("t"):
                f(n)
        print("done")
        raise SystemExit(3)
        """,
        server,
        home,
        before=before,
    ) as process:
        out, err = process.communicate(timeout=60)
    rows = server.trace("t")

    assert (process.returncode, out) == (3, "done\n")
    assert [row["stepId"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["parentStepId"] for row in rows] == [None, 1, 2, 3, 4, 5]
    assert "Set WHYOPS_HOME to a writable directory" in err.splitlines()[0]
    assert "kept in memory only" in err.splitlines()[1]
    assert len(err.splitlines()) == 2


def test_a_store_that_cannot_be_written_delays_no_server(server: Collector, tmp_path: Path) -> None:
    """What the store does not take stays in the journal until it can be written again."""
    with contextlib.closing(sqlite3.connect(tmp_path / "traces.db")) as other_program:
        other_program.execute("CREATE TABLE notes (text)")
    sdk = client(server, tmp_path, store=True)
    sdk.trace("t").error_sync("x")
    sdk._deliveries[1].flush(time.monotonic() + 30)
    before = {name: (tally.delivered, tally.pending) for name, tally in sdk.stats().items()}
    (tmp_path / "traces.db").unlink()
    after = sdk.flush_sync(30)["local"].delivered

    assert before == {"local": (0, 1), "whyops": (1, 0)}
    assert after == 1
    assert told(stored(tmp_path, "t")) == ["x"]


# Cut and damaged files


def test_a_journal_that_is_cut_anywhere(
    server: Collector, tmp_path: Path, said: Callable[[], list[str]]
) -> None:
    """The next process delivers each complete record before the cut, once and in order, and goes on."""
    server.stop()
    with agent(
        """
        import os
        from whyops_trace import WhyOps
        handle = WhyOps().trace("t")
        for n in range(30):
            handle.error_sync(str(n), stack="é" * (n * 7 % 40))
        os._exit(0)
        """,
        server,
        tmp_path / "dead",
    ) as process:
        assert process.communicate(timeout=60) == ("", "")
    server.start()
    (left,) = (tmp_path / "dead").rglob("*.seg")
    whole = left.read_bytes()
    data = whole.rstrip(b"\0")
    ends = [place + 1 for place in range(PAGE, len(data)) if data[place : place + 1] == b"\n"]
    around = [end + offset for end in ends[::6] for offset in (-1, 0, 1)]
    inside = [(first + last) // 2 for first, last in itertools.pairwise(ends[::6])]
    cuts = [0, 1, 700, PAGE - 1, PAGE, PAGE + 1, *around, *inside, len(whole)]
    for number, (cut, zeros) in enumerate(itertools.product(sorted({*cuts}), (False, True))):
        home = tmp_path / str(number)
        copy = home / left.relative_to(tmp_path / "dead")
        copy.parent.mkdir(parents=True)
        copy.write_bytes(whole[:cut].ljust(len(whole) if zeros else 0, b"\0"))
        complete = [] if cut < PAGE and not zeros else data[PAGE:cut].split(b"\n")[:-1]
        damaged = cut < PAGE and (not zeros or cut < len(whole[:2048].rstrip(b"\0")))
        earlier, spoken = len(server.requests), len(said())
        with client(server, home) as sdk:
            sdk.trace().error_sync("next")
            sdk.flush_sync(30)
        sent = [event for request in server.requests[earlier:] for event in request.json]

        assert told(sent) == [*(json.loads(line)["content"]["message"] for line in complete), "next"], cut
        assert len({event["idempotencyKey"] for event in sent}) == len(sent)
        assert ["set aside" in text for text in said()[spoken:]] == [True] * damaged, cut
        assert [path.suffix for path in copy.parent.iterdir()] == [".bad"] * damaged


def newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no database": lambda path: path.write_bytes(b"no database at all" * 1000),
    "of a newer version": newer,
    "a directory": Path.mkdir,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_what_the_server_said(
    server: Collector, tmp_path: Path, said: Callable[[], list[str]], damage: str
) -> None:
    """It is set aside or left alone, said once, and every event arrives under its right number."""
    path = tmp_path / "server.db"
    DAMAGES[damage](path)
    before = path.stat()
    with client(server, tmp_path) as sdk:
        handle = sdk.trace("t")
        for n in range(4):
            handle.error_sync(str(n))
            sdk.flush_sync(30)
    rows = server.trace("t")

    assert told(rows) == ["0", "1", "2", "3"]
    assert [row["stepId"] for row in rows] == [1, 2, 3, 4]
    assert [text.partition(":")[0] for text in said()] == [
        "What the server said of the numbering of traces is kept in memory only, and lost with the process"
    ]
    kept = path if damage == "of a newer version" else path.with_name("server.db.bad")
    assert (kept.stat().st_ino, kept.stat().st_size) == (before.st_ino, before.st_size)


def test_the_file_of_what_the_server_said_is_deleted(
    server: Collector, tmp_path: Path, said: Callable[[], list[str]]
) -> None:
    """The running process still knows its numbers, and the next one asks the server."""
    for turn in range(2):
        with client(server, tmp_path) as sdk:
            handle = sdk.trace("t")
            for n in range(3):
                handle.error_sync(f"{turn} {n}")
                sdk.flush_sync(30)
                for path in tmp_path.glob("server.db*"):
                    path.unlink()
    rows = server.trace("t")

    assert told(rows) == [f"{turn} {n}" for turn in range(2) for n in range(3)]
    assert [(row["stepId"], row["parentStepId"]) for row in rows] == [
        (1, None), (2, 1), (3, 2), (4, 3), (5, 4), (6, 5),
    ]  # fmt: skip
    assert said() == []


def test_refused_events_that_can_be_kept_nowhere(
    server: Collector, tmp_path: Path, said: Callable[[], list[str]]
) -> None:
    """They are counted, and nothing else suffers."""
    (tmp_path / "rejected.ndjson").mkdir()
    server.reject = lambda event: "not this one" if event["content"]["message"] == "bad" else None
    with client(server, tmp_path) as sdk:
        for message in ("good", "bad", "good", "bad"):
            sdk.trace("t").error_sync(message)
        tally = sdk.flush_sync(30)["whyops"]

    assert (tally.delivered, tally.rejected, tally.pending) == (2, 2, 0)
    assert told(server.trace("t")) == ["good", "good"]
    assert sum("Cannot keep a refused event" in text for text in said()) == 1


# The budget


def test_an_outage_that_outlasts_the_budget(
    server: Collector, tmp_path: Path, said: Callable[[], list[str]]
) -> None:
    """The server's oldest are dropped, counted and said once; the store has everything."""
    sdk = client(server, tmp_path, store=True, max_journal_bytes=1 << 20)
    sdk.trace().error_sync("before")
    sdk.flush_sync(30)
    server.stop()
    handle = sdk.trace("t")
    for n in range(3000):
        handle.error_sync(str(n), stack="x" * 500)
        if n % 100 == 99:
            sdk._deliveries[0].flush(time.monotonic() + 30)
    during = sdk.stats()
    on_disk = sum(path.stat().st_size for path in (tmp_path / "journal").rglob("*.*"))
    server.start()
    after = sdk.flush_sync(30)
    dropped = during["whyops"].dropped
    arrived = [str(n) for n in range(dropped, 3000)]

    assert 0 < dropped < 3000
    assert during["whyops"].reasons == {"disk_full": dropped}
    assert during["whyops"].pending == 3000 - dropped
    assert on_disk <= (1 << 20) + (1 << 17)  # and the segment kept ready
    assert after["whyops"].delivered == 1 + len(arrived)
    assert (after["whyops"].dropped, after["whyops"].pending) == (dropped, 0)
    assert (after["local"].delivered, after["local"].dropped) == (3001, 0)
    assert told(server.trace("t")) == arrived
    assert told(stored(tmp_path, "t")) == [str(n) for n in range(3000)]
    assert sum("is full" in text for text in said()) == 1


def test_the_budget_comes_from_the_environment_or_the_argument(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The argument wins; underscores may part the digits."""
    monkeypatch.setenv("WHYOPS_MAX_JOURNAL_BYTES", "2_000_000")

    assert WhyOps(home=tmp_path).settings.max_journal_bytes == 2_000_000
    assert WhyOps(home=tmp_path, max_journal_bytes=1 << 20).settings.max_journal_bytes == 1 << 20


@pytest.mark.parametrize("value", [0, 1_000_000, 1e9, True, "1 MiB"])
def test_a_budget_that_cannot_be_obeyed(value: Any) -> None:
    """What is too little for a segment, or no number of bytes, is refused where the client is made."""
    with pytest.raises(ConfigurationError, match=r"WHYOPS_MAX_JOURNAL_BYTES.*1048576 or more"):
        WhyOps(max_journal_bytes=value)


def test_no_call_waits_or_fails_while_nothing_can_be_kept(server: Collector, tmp_path: Path) -> None:
    """With no disk and no server, eight threads record on; what memory cannot hold is counted."""
    server.stop()
    (tmp_path / "home").write_text("")
    sdk = client(server, tmp_path / "home")

    def work() -> None:
        handle = sdk.trace()
        for _ in range(500):
            handle.error_sync("x", stack="x" * 6000)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    during = sdk.stats()["whyops"]
    server.start()
    after = sdk.flush_sync(30)["whyops"]

    assert during.emitted == 4000
    assert during.dropped == during.reasons["memory_full"] > 0
    assert during.pending + during.dropped == 4000
    assert (after.delivered + after.dropped, after.pending) == (4000, 0)
    assert len(server.stored) == after.delivered >= during.pending
