"""The ways of the journal to write, each under what it has to survive."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from programs import environment, run_code, stored

from whyops_trace import ConfigurationError, WhyOps
from whyops_trace.exporters.memory import MemoryExporter

MODES = ["map", "write", "checked", "write-checked"]

#: An agent that makes 300 calls, of which none can have been delivered, and is killed.
KILLED = """
    import os, signal
    import whyops_trace._delivery.pace
    whyops_trace._delivery.pace.LINGER = 3600
    from whyops_trace import WhyOps, traced_tool, trace
    sdk = WhyOps(agent_name="shop")
    @traced_tool
    def f(n): return n
    with trace("t"):
        for n in range(300):
            f(n)
        os.kill(os.getpid(), signal.SIGKILL)
"""

#: The next process of that agent, whose journal has any mode.
NEXT = """
    from whyops_trace import WhyOps
    WhyOps(agent_name="shop").trace("next").error_sync("next")
"""


@pytest.mark.parametrize("fsync", ["never", "interval", "always"])
@pytest.mark.parametrize("mode", MODES)
def test_a_kill_loses_nothing_in_any_mode(tmp_path: Path, mode: str, fsync: str) -> None:
    """Whatever the next process has for a mode of its own."""
    killed = run_code(KILLED, tmp_path, WHYOPS_JOURNAL=mode, WHYOPS_FSYNC=fsync)
    following = run_code(NEXT, tmp_path)

    assert (killed.returncode, killed.stderr, following.stderr) == (-9, "", "")
    assert [event["stepId"] for event in stored(tmp_path, "t")] == list(range(1, 601))


@pytest.mark.parametrize("size", [0, 6_000])
@pytest.mark.parametrize("mode", MODES)
def test_somebody_shortens_a_segment_in_use(tmp_path: Path, mode: str, size: int) -> None:
    """The program lives, and what was cut off is counted where no memory has it as well."""
    done = run_code(
        """
        import glob, os, sys
        from whyops_trace import WhyOps, traced_tool
        sdk = WhyOps()
        @traced_tool
        def f(i): return i
        for i in range(20): f(i)
        for name in glob.glob(os.environ["WHYOPS_HOME"] + "/journal/*/*"):
            os.truncate(name, SIZE)
        for i in range(100): f(i)
        tally = sdk.flush_sync()["local"]
        assert tally.emitted == 240 == tally.delivered + tally.dropped, tally
        assert not tally.reasons.keys() - {"damaged"}, tally
        print("lives", tally.dropped > 0)
        """.replace("SIZE", str(size)),
        tmp_path,
        WHYOPS_JOURNAL=mode,
    )

    assert (done.returncode, done.stdout.split()[0]) == (0, "lives"), done.stderr
    if mode.startswith("write"):
        assert done.stdout == "lives False\n"


def test_a_segment_is_synced_with_each_record_if_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call goes on when the disk has the record, and the name of its file."""
    synced: list[str] = []

    def note(descriptor: int) -> None:
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")).rpartition(".")[2])

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "fdatasync", note)
    counts = []
    for fsync in ("never", "always"):
        sdk = WhyOps(home=tmp_path / fsync, store=False, exporters=[MemoryExporter()], fsync=fsync)
        trace = sdk.trace("t")
        for _ in range(3):
            before = len(synced)
            trace.error_sync("out of stock")
            counts.append(synced[before:].count("seg"))
        sdk.close_sync()

    assert counts == [0, 0, 0, 1, 1, 1] or counts == [
        0,
        0,
        0,
        0,
        1,
        1,
    ]  # the first stands in a file with no name yet
    assert len(synced) >= 4


def test_a_thread_syncs_the_journal_once_in_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No call waits for the disk; the end of the client does."""
    monkeypatch.setattr("whyops_trace._delivery.syncing.SYNC_EVERY", 0.0)
    memory = MemoryExporter()
    with WhyOps(home=tmp_path, store=False, exporters=[memory], fsync="interval") as sdk:
        for number in range(3):
            sdk.trace(f"t{number}").error_sync("out of stock")
            sdk.flush_sync()
    sdk.trace("later").error_sync("again")
    ledger = sdk.close_sync()

    assert ledger["memory"].delivered == 4


@pytest.mark.parametrize(("name", "value"), [("journal", "fast"), ("fsync", "sometimes")])
def test_a_mode_that_does_not_exist_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """From the environment as well; the words that are known are said."""
    monkeypatch.setenv(f"WHYOPS_{name.upper()}", value)

    with pytest.raises(
        ConfigurationError, match=rf"{name} \(WHYOPS_{name.upper()}\) is '{value}'; it must be"
    ):
        WhyOps(home=tmp_path)


def test_a_destination_that_gets_nothing_has_a_tally_of_zeros(tmp_path: Path) -> None:
    """With tracing off, or a key and no store, ``flush()["local"]`` is no error."""
    off = WhyOps(home=tmp_path, tracing="off").flush_sync()

    assert off == {}
    assert sum(off["local"][:6]) == 0
    assert "local" not in off


def test_memory_that_is_short_is_the_reason_that_is_given(tmp_path: Path) -> None:
    """A record that fits the budgets is not too large."""
    done = run_code(
        """
        import os, resource
        from whyops_trace import flush_sync, traced_tool
        @traced_tool
        def f(i): return i
        f(0)
        used = int(open("/proc/self/statm").read().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_AS, (used + 600_000,) * 2)
        for i in range(20_000): f(i)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        print(*flush_sync()["local"].reasons, flush=True)
        os._exit(0)
        """,
        tmp_path,
    )

    assert "too_large" not in done.stdout


#: Parts of a platform that some do not have: modules, and functions of the module os.
PARTS = [
    "fcntl",
    "mmap",
    "posix_fallocate",
    "fork,register_at_fork",
    "O_NOFOLLOW",
    "getuid",
    "fchmod",
    "pread,pwrite",
    "fdatasync",
    "waitid",
]


@pytest.mark.parametrize("missing", [*PARTS, ",".join(PARTS)], ids=[*PARTS, "all"])
def test_a_platform_that_lacks_something(tmp_path: Path, missing: str) -> None:
    """The import works, calls run, and all records arrive; a warning says what does not survive the process."""
    code = """
        import os, posix, sys
        for name in sys.argv[1].split(","):
            if name in {"fcntl", "mmap"}:
                sys.modules[name] = None
            else:
                delattr(os, name)
                if hasattr(posix, name):
                    delattr(posix, name)
        from whyops_trace import WhyOps, traced_tool, trace
        sdk = WhyOps()
        @traced_tool
        def f(i): return i
        with trace("t"):
            for i in range(500): f(i)
        print(sdk.flush_sync()["local"].delivered)
        with trace("u"):
            f(1)
        sdk.close_sync()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), missing],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "1001\n"), done.stderr
    assert done.stderr.count("\n") == ("fcntl" in missing)
    assert ("files cannot be locked on this platform" in done.stderr) is ("fcntl" in missing)
    assert len(stored(tmp_path, "u")) == 3


@pytest.mark.parametrize("mode", ["map", "checked"])
def test_an_interrupt_at_any_place_leaves_a_ledger_that_adds_up(tmp_path: Path, mode: str) -> None:
    """After each the next call is recorded, and in the end nothing is pending that does not exist."""
    done = run_code(
        """
        import sys
        from whyops_trace import WhyOps, traced_tool
        sdk = WhyOps()
        @traced_tool
        def f(i): return i
        left, hit = 0, False
        def inside(frame, event, arg):
            global left, hit
            if event == "opcode":
                left -= 1
                if left == 0:
                    hit = True
                    raise KeyboardInterrupt
            return inside
        def outside(frame, event, arg):
            name = frame.f_code.co_filename
            if "whyops_trace/_recording" in name or "whyops_trace/_journal" in name:
                frame.f_trace_opcodes = True
                return inside
        number = short = 0
        while number == 0 or hit:
            number += 1
            left, hit = number, False
            sys.settrace(outside)
            try:
                f(number)
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(None)
            before = sdk.stats()["local"].emitted
            f(-1)
            short += sdk.stats()["local"].emitted - before < 2
        tally = sdk.flush_sync()["local"]
        print(number > 300, short, tally.pending, tally.emitted == tally.delivered)
        """,
        tmp_path,
        WHYOPS_JOURNAL=mode,
    )

    assert (done.stdout, done.stderr) == ("True 0 0 True\n", "")


def test_a_storm_of_interrupts_loses_no_call_that_returned(tmp_path: Path) -> None:
    """A signal every millisecond raises in the middle of calls, 300 times."""
    done = run_code(
        """
        import signal
        from whyops_trace import WhyOps, traced_tool
        sdk = WhyOps()
        @traced_tool
        def f(i): return i
        armed, done, interrupted = False, 0, 0
        def ring(*_):
            if armed: raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, 0.0007, 0.0007)
        while interrupted < 300:
            try:
                try:
                    armed = True; f(done); armed = False; done += 1
                except KeyboardInterrupt: armed = False; interrupted += 1
            except KeyboardInterrupt: armed = False; interrupted += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        tally = sdk.flush_sync(timeout=60)["local"]
        print(tally.pending, tally.delivered >= 2 * done, tally.emitted == tally.delivered)
        """,
        tmp_path,
    )

    assert done.stdout == "0 True True\n", done.stderr


def test_a_program_that_handles_a_failing_store_is_not_held_up(tmp_path: Path) -> None:
    """Python would call its handler when the store is done, which is tried again without end."""
    done = run_code(
        """
        import glob, os, signal, threading
        signal.signal(signal.SIGBUS, lambda *_: None)
        from whyops_trace import traced_tool

        @traced_tool
        def work(i): return i

        work(0)
        names = glob.glob(os.path.join(os.environ["WHYOPS_HOME"], "journal", "*", "*.seg"))
        cut = threading.Thread(target=lambda: [os.truncate(name, 0) for name in names])
        cut.start()
        while cut.is_alive():
            work(1)
        for i in range(1_000):
            work(i)
        print("lives")
        """,
        tmp_path,
    )

    assert done.stdout.split() == ["lives"], done.stderr
