"""
A program that uses a journal until it is killed, for ``test_journal_crash.py``.

Usage: ``journal_child.py HOME MODE COMMAND [NUMBER]``. The test knows of it only what it says on stdout.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from journals import DESTINATIONS, fill, make, read, record

# Forking beside threads is what is tested.
warnings.simplefilter("ignore", DeprecationWarning)

HOME = Path(sys.argv[1])
OPTIONS: dict[str, Any] = {} if sys.argv[2] == "mapped" else {"mappable": ()}
NUMBER = int(sys.argv[4]) if len(sys.argv) > 4 else 0


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


class Host:
    """A journal as a recorder uses it: under a lock, in threads, over forks."""

    def __init__(self) -> None:
        self.journal = make(HOME, **OPTIONS)
        self.lock = threading.Lock()

    def write(self, worker: int, written: threading.Semaphore | None = None) -> None:
        """Append for ever, and acknowledge what has been taken."""
        number = 0
        while True:
            with self.lock:
                self.journal.append(
                    b'{"n":"%d-%d-%d","pad":"%b"}\n'
                    % (os.getpid(), worker, number, b"x" * (number * 37 % 3_000))
                )
            say(f"{os.getpid()}-{worker}-{number}")
            number += 1
            if written is not None:
                written.release()

    def keep_house(self) -> None:
        while True:
            self.journal.prepare()
            self.journal.retire()

    def fork(self, in_child: Callable[[], object]) -> int:
        """Fork as a recorder does; the child runs a function and ends."""
        with self.lock, self.journal.lock:
            pid = os.fork()
            if pid == 0:
                self.journal.renew()
                self.lock = threading.Lock()
        if pid == 0:
            in_child()
            os._exit(0)
        return pid


def _start(*functions: Callable[[], object]) -> None:
    for function in functions:
        threading.Thread(target=function, daemon=True).start()


def write() -> None:
    """Write in four threads beside a housekeeper."""
    host = Host()
    _start(host.keep_house, *(lambda worker=worker: host.write(worker) for worker in range(4)))
    signal.pause()


def fork() -> None:
    """The same, and a child forked in the middle of it writes too."""
    host = Host()
    written = threading.Semaphore(0)
    _start(host.keep_house, *(lambda worker=worker: host.write(worker, written) for worker in range(4)))
    for _ in range(500):
        written.acquire()

    def go_on() -> None:
        _start(host.keep_house, *(lambda worker=worker: host.write(worker) for worker in range(10, 14)))
        signal.pause()

    host.fork(go_on)
    signal.pause()


def hold() -> None:
    """Append some records and wait."""
    host = Host()
    fill(host.journal, range(NUMBER))
    say("ready")
    signal.pause()


def leave_child() -> None:
    """Leave a child behind that goes on recording until stdin ends."""
    host = Host()
    fill(host.journal, range(5))

    def go_on() -> None:
        fill(host.journal, range(100, 105))
        say("ready")
        sys.stdin.read()
        host.journal.close()

    host.fork(go_on)
    signal.pause()


def outlive_child() -> None:
    """Let a child record and close, then go on until stdin ends."""
    host = Host()
    fill(host.journal, range(5))

    def come_and_go() -> None:
        fill(host.journal, range(100, 105))
        host.journal.close()

    os.waitpid(host.fork(come_and_go), 0)
    say("ready")
    sys.stdin.read()
    fill(host.journal, range(5, 10))
    host.journal.close()


def inherit() -> None:
    """Fork again and again beside a busy housekeeper; each child says how many files of its parent it holds."""
    host = Host()
    stop = threading.Event()

    def be_busy() -> None:
        number = 0
        while not stop.is_set():
            with host.lock:
                host.journal.append(record(number, 20_000))
            number += 1
            host.journal.prepare()
            for destination in DESTINATIONS:
                read(host.journal.segments, destination)
            host.journal.retire()

    busy = threading.Thread(target=be_busy)
    busy.start()

    def count_files() -> None:
        descriptors = Path("/proc/self/fd").iterdir()
        say(str(sum(str(HOME) in os.readlink(path) for path in list(descriptors)[:-1])))

    for _ in range(NUMBER):
        os.waitpid(host.fork(count_files), 0)
    stop.set()
    busy.join()
    host.journal.close()


def adopt() -> None:
    """Take over everything until stdin ends, and once more, or only once then; say what came."""
    say("ready")
    journal = make(HOME, **OPTIONS)
    ended = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        ended.set()

    _start(wait_for_end)
    if NUMBER:
        ended.wait()
    while True:
        last = ended.is_set()
        for segment in journal.adopt():
            for line in read([segment]):
                say(line.decode())
            read([segment], "whyops")
        journal.retire()
        if last:
            return


def come_and_go() -> None:
    """Be many short processes: each makes a journal, records once, and leaves the record behind."""
    for number in range(NUMBER):
        journal = make(HOME, **OPTIONS)
        fill(journal, [number])
        journal.close()


def full() -> None:
    """Record while no file can grow beyond a limit, as on a full disk, and when it can again."""
    journal = make(HOME, **OPTIONS)
    resource.setrlimit(resource.RLIMIT_FSIZE, (NUMBER, resource.RLIM_INFINITY))
    fill(journal, range(1_000), 500)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    fill(journal, range(1_000, 2_000), 500)
    in_memory = sum(segment.path is None for segment in journal.segments)
    say(f"{in_memory} of {len(journal.segments)} in memory")
    for line in read(journal.segments):
        say(line.decode())


COMMANDS: dict[str, Callable[[], None]] = {
    command.__name__: command
    for command in (write, fork, hold, leave_child, outlive_child, inherit, adopt, come_and_go, full)
}

if __name__ == "__main__":
    COMMANDS[sys.argv[3]]()
