"""Homes that can only be read, disks that are full, and stores that are damaged: what the commands do with them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from journals import die
from lines import Process, encoded, tool_request, tool_response
from programs import environment, may_mount, run, start

from whyops_trace._journal.journal import Journal
from whyops_trace.store import Store

TOKEN = "9f2c41aa01be"
#: The commands that read traces.
READING = (
    ["ls"],
    ["ls", "--json"],
    ["show", "stored"],
    ["show", "stored", "--step", "1"],
    ["stats"],
    ["check", "stored", "--fail-on", "never"],
    ["export", "stored"],
    ["export", "stored", "--json"],
    ["export", "stored", "--format", "html", "-o", "-"],
    ["journal", "status"],
)


def lines(trace: str, process: Process | None = None) -> list[bytes]:
    process = process or Process(trace=trace)
    return [encoded(tool_request(process, 1)), encoded(tool_response(process, 2, 1))]


def put(home: Path, *traces: str) -> None:
    with contextlib.closing(Store(home / "traces.db")) as store:
        store.ingest((TOKEN, [line for trace in traces for line in lines(trace)]))


def leave(home: Path, trace: str) -> None:
    """Leave records in the journal, as a process that was killed."""
    journal = Journal(home / "journal" / "shop", stream="shop", agent="shop", destinations=["local"])
    for line in lines(trace, Process(journal.token, trace)):
        journal.append(line + b"\n")
    die(journal)


def said(script: str, home: Path, *commands: list[str]) -> list[tuple[int, str, str]]:
    """Run commands where a script has changed the mounts; return the exit code, output and errors of each."""
    if not may_mount():
        pytest.skip("this machine does not let `unshare --map-root-user --mount` mount")
    program = (
        "import json, subprocess, sys\n"
        "run = lambda c: subprocess.run([sys.executable, '-m', 'whyops_trace', *c], capture_output=True, text=True)\n"
        "done = [run(command) for command in json.loads(sys.argv[1])]\n"
        "print(json.dumps([(each.returncode, each.stdout, each.stderr) for each in done]))"
    )
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-ec", f'{script}; exec "$@"', str(home), sys.executable,
         "-c", program, json.dumps(commands)],
        env=environment(home), capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    return [tuple(each) for each in json.loads(done.stdout)]


#: Keeps the store of a home open.
HOLD = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1] + "/traces.db")
connection.execute("SELECT * FROM traces").fetchall()
with open(sys.argv[1] + "/held", "w") as held:
    held.write("yes")
time.sleep(20)
"""
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0"'


def in_state(home: Path, state: str) -> list[str]:
    """Make a home as it may stand in a snapshot; return the traces in it."""
    if state == "closed":
        put(home, "stored")
        return ["stored"]
    if state == "open":
        store = Store(home / "traces.db")
        store.ingest((TOKEN, lines("stored")))
        copy = home.with_name("copy")
        shutil.copytree(home, copy)  # with a log, and without the changes of its last process
        store.close()
        shutil.rmtree(home)
        copy.rename(home)
        return ["stored"]
    if state == "without the index of the log":
        in_state(home, "open")
        (home / "traces.db-shm").unlink()
        return ["stored"]
    if state == "of an earlier format":
        put(home, "stored")
        with contextlib.closing(sqlite3.connect(home / "traces.db")) as connection, connection:
            for column in ("said_failed", "ending", "forgotten"):
                connection.execute(f"ALTER TABLE traces DROP COLUMN {column}")
            connection.execute("DROP TABLE forgotten")
            connection.execute("DROP TABLE scores")
            connection.execute("PRAGMA user_version = 6")
        return ["stored"]
    put(home, "stored")
    leave(home, "left")
    return ["left", "stored"]


STATES = [
    "closed",
    "open",
    "without the index of the log",
    "of an earlier format",
    "with records in the journal",
]


def content(home: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(home)): path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()
    }


@pytest.mark.parametrize("state", STATES)
def test_a_home_on_a_read_only_disk_is_read(tmp_path: Path, state: str) -> None:
    """With all that is in the log of its store and in its journals; it stays as it is, and no copy is left."""
    home = tmp_path / "home"
    traces = in_state(home, state)
    before = content(home)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    results = said(f'export TMPDIR="{temporary}"; {READ_ONLY}', home, *READING)

    assert [code for code, _, _ in results] == [0] * len(READING), results
    assert [err for _, _, err in results if "Traceback" in err or "cannot" in err] == []
    assert sorted(each["traceId"] for each in json.loads(results[1][1])) == traces
    assert content(home) == before
    assert list(temporary.iterdir()) == []


def test_nothing_is_deleted_from_a_home_that_can_only_be_read(tmp_path: Path) -> None:
    """The error says so in a line, and the program that records goes on."""
    home = tmp_path / "home"
    in_state(home, "with records in the journal")
    before = content(home)
    deletions = (
        ["rm", "stored", "--yes"],
        ["rm", "--all", "--yes"],
        ["rm", "--user", "mia", "--yes"],
        ["journal", "purge", "--all", "--yes"],
    )
    results = said(READ_ONLY, home, *deletions)

    assert (
        results
        == [(1, "", f"Error: {home} can only be read by this user: nothing can be changed there.\n")] * 4
    )
    assert content(home) == before


def test_a_home_of_another_user_is_read(tmp_path: Path) -> None:
    """Its permissions let this user read it and no more, while its owner records."""
    if os.geteuid() or shutil.which("setpriv") is None:
        pytest.skip("only root can become somebody else")
    home = tmp_path / "home"
    store = Store(home / "traces.db")
    store.ingest((TOKEN, lines("stored")))
    for path in (home, *home.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    before = sorted(home.iterdir())
    command = [
        "setpriv",
        "--bounding-set=-dac_override,-dac_read_search,-fowner",
        "--reuid=0",
        "--clear-groups",
    ]
    os.chown(home, 65534, 65534)
    for path in home.rglob("*"):
        os.chown(path, 65534, 65534)
    told = []
    for trace in ("second", "third"):
        done = subprocess.run(
            [*command, sys.executable, "-m", "whyops_trace", "ls", "--json"],
            env=environment(home), capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        told.append((done.returncode, done.stderr, len(json.loads(done.stdout))))
        store.ingest((TOKEN, lines(trace)))
    store.close()

    assert told == [(0, "", 1), (0, "", 2)]
    assert before == [home / "traces.db", home / "traces.db-shm", home / "traces.db-wal"]


def test_a_home_that_this_user_may_not_enter_is_said(tmp_path: Path) -> None:
    """It is not said to be empty."""
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("permissions do not bind root, and there is no setpriv to change that")
    home = tmp_path / "home"
    put(home, "stored")
    home.chmod(0o400)
    before = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*before, sys.executable, "-m", "whyops_trace", "ls"],
        env=environment(home), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    home.chmod(0o700)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: {home} cannot be read by this user.\n"


@pytest.mark.parametrize("waiting", [False, True])
def test_a_full_disk_is_read_and_freed(tmp_path: Path, waiting: bool) -> None:
    """Reading commands read, `rm` deletes and frees, and what waited for room is stored then."""
    home = tmp_path / "home"
    for n in range(20):
        with contextlib.closing(Store(home / "traces.db")) as store:
            process = Process(trace=f"t{n}")
            texts = [os.urandom(20_000).hex() for _ in range(5)]
            store.ingest(
                (TOKEN, [process.line("error", i, content={"message": x}) for i, x in enumerate(texts, 1)])
            )
    put(home, "stored")
    if waiting:
        leave(home, "left")
    script = (
        'cp -a "$0" "$0.copy"; mount -t tmpfs -o size=12m none "$0"; cp -a "$0.copy/." "$0"; '
        'cat /dev/zero > "$0/ballast" 2> /dev/null || true'
    )
    free = ["rm", "t3", "--yes"]
    results = said(
        script, home, *READING, free, ["rm", "t4", "t5", "--yes", "--json"], ["ls", "--json", "--limit", "99"]
    )
    codes = [code for code, _, _ in results]
    listed = {each["traceId"] for each in json.loads(results[-1][1])}

    assert codes == [0] * len(codes), results
    assert [err for _, _, err in results if "Traceback" in err] == []
    assert listed == {*(f"t{n}" for n in (0, 1, 2, *range(6, 20))), "stored", *(["left"] if waiting else [])}
    assert json.loads(results[-2][1])["bytesFreed"] > 100_000
    assert ("is not stored" in results[0][2]) is waiting


def test_a_full_disk_with_a_store_in_use_says_what_to_do(tmp_path: Path) -> None:
    """Another process has it open, and there is no room for a log."""
    home = tmp_path / "home"
    put(home, "stored", "other")
    holder = tmp_path / "hold.py"
    holder.write_text(HOLD)
    script = (
        'cp -a "$0" "$0.copy"; mount -t tmpfs -o size=4m none "$0"; cp -a "$0.copy/." "$0"; mkfifo "$0/held"; '
        f'{sys.executable} {holder} "$0" > /dev/null 2>&1 & read line < "$0/held" || true; '
        'cat /dev/zero > "$0/ballast" 2> /dev/null || true'
    )
    (code, _, err), (listed, out, _) = said(script, home, ["rm", "stored", "--yes"], ["ls", "--json"])

    assert (code, listed) == (1, 0)
    assert "another process has the store open: end it and repeat this, or free some room first" in err
    assert len(json.loads(out)) == 2


def test_a_store_that_cannot_be_changed_in_place_is_left_as_it_is(tmp_path: Path) -> None:
    """Where a limit of the size of files, or the file system, would stop the change in the middle."""
    home = tmp_path / "home"
    put(home, *(f"t{n}" for n in range(100)))
    told = []
    for command in (["rm", "t5", "--yes"], ["ls", "--json", "--limit", "200"]):
        program = [sys.executable, "-m", "whyops_trace", *command]
        done = subprocess.run(
            ["sh", "-c", 'ulimit -f 8; exec "$@"', "sh", *program],
            env=environment(home), capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        told.append((done.returncode, done.stdout, done.stderr))
    (code, _, error), (listed, traces, _) = told

    assert (code, listed) == (1, 0)
    assert "without danger: free some room first" in error
    assert len(json.loads(traces)) == 100


@pytest.mark.parametrize("command", [*READING[:-1], ["doctor"]])
def test_a_damaged_store_is_said_by_every_command(tmp_path: Path, command: list[str]) -> None:
    """In a line, with the name of the file that is kept, and new records go on."""
    home = tmp_path / "home"
    put(home, "stored")
    data = (home / "traces.db").read_bytes().replace(b"CREATE TABLE", b"CREATE TABL\xd6")
    (home / "traces.db").write_bytes(data)
    first = run("-m", "whyops_trace", *command, home=home)
    put(home, "new")
    second = run("-m", "whyops_trace", "ls", "--json", home=home)

    assert first.returncode == 1
    assert f"It is kept as {home / 'traces.db.bad'}" in " ".join((first.stdout + first.stderr).split())
    assert "Traceback" not in first.stderr
    assert (home / "traces.db.bad").read_bytes() == data
    assert [each["traceId"] for each in json.loads(second.stdout)] == ["new"]


def test_a_damaged_store_is_said_by_the_server(tmp_path: Path) -> None:
    """On standard error, whichever part of it finds the damage; pages and the collector go on with a new one."""
    pytest.importorskip("starlette", reason="The server needs the extra [ui].")
    home = tmp_path / "home"
    put(home, "stored")
    (home / "traces.db").write_bytes(os.urandom(50_000))
    with start("-m", "whyops_trace", "serve", "--port", "0", "--json", home=home) as server:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        answers = []
        for path in ("/", "/", "/?q=charge"):
            try:
                answers.append(urllib.request.urlopen(url + path).status)
            except urllib.error.HTTPError as error:
                answers.append(error.code)
        put(home, "new")
        page = urllib.request.urlopen(f"{url}/t/new").read().decode()
        server.terminate()
        _, err = server.communicate(timeout=60)

    assert set(answers) <= {200, 503}
    assert answers[-1] == 200
    assert "charge_card" in page
    assert "Traceback" not in err
    assert err.count("It is kept as") + (503 in answers) >= 1


def test_what_ended_processes_left_is_stored_beside_a_damaged_store(tmp_path: Path) -> None:
    """The command that finds the damage says so, and the next one shows the records."""
    home = tmp_path / "home"
    put(home, "stored")
    leave(home, "left")
    (home / "traces.db").write_bytes(os.urandom(50_000))
    first, second = (run("-m", "whyops_trace", "ls", "--json", home=home) for _ in range(2))

    assert "What ended processes left is not stored: " in first.stderr
    assert "It is kept as " in first.stderr
    assert [each["traceId"] for each in json.loads(second.stdout)] == ["left"]


SERVED = """
import json, subprocess, sys, urllib.request
with subprocess.Popen(
    [sys.executable, "-m", "whyops_trace", "serve", "--port", "0", "--json"], stdout=subprocess.PIPE, text=True
) as server:
    try:
        url = json.loads(server.stdout.readline())["url"]
        pages = [urllib.request.urlopen(url + path).read().decode() for path in json.loads(sys.argv[1])]
        event = {"eventType": "user_message", "traceId": "sent", "agentName": "shop"}
        sent = urllib.request.Request(
            url + "/api/events", json.dumps(event).encode(), {"content-type": "application/json"}
        )
        try:
            urllib.request.urlopen(sent)
        except urllib.error.HTTPError as error:
            pages.append(f"{error.code} {error.read().decode()}")
    finally:
        server.terminate()
print(json.dumps(pages))
"""


@pytest.mark.parametrize("state", STATES)
def test_a_home_on_a_read_only_disk_is_served(tmp_path: Path, state: str) -> None:
    """Its list, its pages and its search; what is sent there is refused, and no copy is left."""
    pytest.importorskip("starlette", reason="The server needs the extra [ui].")
    if not may_mount():
        pytest.skip("this machine does not let `unshare --map-root-user --mount` mount")
    home = tmp_path / "home"
    traces = in_state(home, state)
    before = content(home)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    paths = ["/", "/t/stored", "/?q=charge", "/api/threads"]
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-ec", f'{READ_ONLY}; exec "$@"', str(home), sys.executable,
         "-c", SERVED, json.dumps(paths)],
        env=environment(home, TMPDIR=str(temporary)), capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    listed, page, found, threads, refused = json.loads(done.stdout)

    assert done.stderr == ""
    assert "charge_card" in page
    assert [trace in text for text in (listed, found, threads) for trace in traces] == [True] * 3 * len(
        traces
    )
    assert str(temporary) not in listed
    assert refused.startswith("503 ")
    assert "it can only be read" in refused
    assert content(home) == before
    assert list(temporary.iterdir()) == []
