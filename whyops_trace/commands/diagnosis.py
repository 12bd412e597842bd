"""Checks of this machine: the installation, the settings, the home, the store and the journal."""

from __future__ import annotations

import contextlib
import difflib
import os
import platform
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Literal, NamedTuple

from whyops_trace._delivery.draining import why_not
from whyops_trace._delivery.room import waiting_count
from whyops_trace._extras import install_hint
from whyops_trace._home import (
    FORWARD_FILE,
    JOURNAL,
    REJECTED_FILE,
    SEARCH_FILE,
    SERVER_FILE,
    SPANS_FILE,
    SPANS_OUT_FILE,
    STORE_FILE,
    WAITING_FILE,
    command_line,
)
from whyops_trace._journal.directory import MAPPABLE, is_mappable
from whyops_trace._journal.survey import SERVER, Stream, survey
from whyops_trace._reading.excerpt import clean, counted, milliseconds, percent
from whyops_trace._version import __version__
from whyops_trace.commands.serving import running
from whyops_trace.exceptions import ConfigurationError, StoreError
from whyops_trace.exporters.whyops.dead_letters import letter_counts
from whyops_trace.settings import VARIABLES, Settings, at_hand, shown_url
from whyops_trace.store import Store
from whyops_trace.store.upgrade import UPGRADES

State = Literal["ok", "warning", "problem"]

#: Packages that the core needs, and those that each extra needs.
_PACKAGES: Final = ("anyio", "httpx", "msgspec", "wrapt")
_EXTRAS: Final = {
    "cli": ("click", "rich"),
    "otel": ("opentelemetry-proto", "opentelemetry-sdk"),
    "prices": ("genai-prices",),
    "ui": ("starlette", "uvicorn", "jinja2"),
}
#: Free bytes of a disk below which recording is at risk, and below which a journal has no room.
_LITTLE_ROOM: Final = 256 << 20
_NO_ROOM: Final = 8 << 20
#: The share of its room above which a journal gets a warning.
_FULL: Final = 0.8
#: Seconds that a clock may be wrong without a warning.
CLOCK_TOLERANCE: Final = 30.0


class Finding(NamedTuple):
    """
    The result of one check.

    Attributes:
        check: The name of the check.
        state: The verdict.
        message: The fact, in a sentence.
        advice: The remedy, in a sentence; "" if none is needed.
    """

    check: str
    state: State
    message: str
    advice: str = ""


def settings_of(home: Path) -> tuple[Settings | None, Finding]:
    """Return the settings from the environment, None if one is invalid, and the result of their check."""
    try:
        settings = at_hand(home)
    except ConfigurationError as error:
        return None, Finding(
            "settings", "problem", str(error), "Correct the environment variable, or unset it."
        )
    present = sorted(name for name in os.environ if name in VARIABLES)
    for name in sorted(os.environ):
        near = difflib.get_close_matches(name, VARIABLES, n=1, cutoff=0.85)
        if name.startswith("WHYOPS_") and name not in VARIABLES and near:
            message = f"The environment has {clean(name)}, which is no setting."
            return settings, Finding("settings", "warning", message, f"Did you mean {near[0]}?")
    message = (
        f"From the environment: {', '.join(present)}." if present else "Nothing is set; the defaults hold."
    )
    return settings, Finding(
        "settings", "ok", f"{message} Arguments of WhyOps(...) win over the environment."
    )


def installation() -> Iterator[Finding]:
    """Check Python and the packages."""
    system = f"{platform.system()} {platform.machine()}"
    yield Finding(
        "python", "ok", f"Python {platform.python_version()} on {system}, whyops-trace {__version__}."
    )
    versions = {name: _version(name) for name in _PACKAGES}
    yield Finding(
        "packages", "ok", ", ".join(f"{name} {text or 'unknown'}" for name, text in versions.items()) + "."
    )
    missing = [extra for extra, names in _EXTRAS.items() if not all(map(_version, names))]
    present = ", ".join(extra for extra in _EXTRAS if extra not in missing) or "none"
    advice = f"To have more, {install_hint(*missing)}" if missing else ""
    yield Finding("extras", "ok", f"Installed: {present}.", advice)


def _version(package: str) -> str:
    """Return the version of an installed package, "" if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def switches(settings: Settings) -> Iterator[Finding]:
    """Check the destinations of traces, and the switches that turn recording off."""
    if settings.tracing == "off":
        yield Finding("tracing", "warning", "WHYOPS_TRACING=off: nothing is recorded.", "Unset it to record.")
        return
    targets = (["the local store"] if settings.store else []) + (
        [shown_url(settings.analyse_url)] if settings.server else []
    )
    targets += [shown_url(settings.otlp)] if settings.otlp else []
    if targets:
        yield Finding("tracing", "ok", f"Traces go to {' and to '.join(targets)}.")
    else:
        message = "WHYOPS_STORE=off and no key: traces go nowhere."
        yield Finding("tracing", "warning", message, "Unset WHYOPS_STORE, or set WHYOPS_API_KEY.")
    if settings.tracing == "local" and settings.api_key:
        message = "WHYOPS_TRACING=local: nothing leaves this machine, though there is a key."
        yield Finding("tracing", "warning", message, "Unset it to report to the server.")
    if settings.sample_rate < 1:
        share = percent(1 - settings.sample_rate)
        message = f"WHYOPS_SAMPLE_RATE={settings.sample_rate:g}: {share} of the traces are not recorded."
        yield Finding("sampling", "warning", message, "Unset it to record all of them.")
    if settings.tail_sampling is not None:
        message = f"Remote destinations get {settings.tail_sampling.words}."
        yield Finding("sampling", "ok", message, "Unset WHYOPS_TAIL_SAMPLING to send all of them.")
        if settings.tail_sampling.costlier_than is not None and not _version("genai-prices"):
            message = "costlier_than has no effect, as no price is known."
            yield Finding("sampling", "warning", message, f"To have prices, {install_hint('prices')}")


def clock() -> Iterator[Finding]:
    """Check the clocks of this machine alone."""
    if not time.get_clock_info("perf_counter").monotonic:
        yield Finding(
            "clock", "problem", "The clock for durations runs backwards.", "Report this with your platform."
        )


def home(path: Path) -> Iterator[Finding]:
    """Check the directory, or the place where it would be made, without making it."""
    place = next((each for each in (path, *path.parents) if os.path.lexists(each)), path)
    if not os.path.isdir(place):
        yield Finding(
            "home", "problem", f"{place} is no directory.", "Name another one with WHYOPS_HOME or --home."
        )
        return
    if not os.access(place, os.R_OK | os.X_OK):
        advice = "Change its owner or mode, or name another one with WHYOPS_HOME or --home."
        yield Finding("home", "problem", f"{place} cannot be read by this user.", advice)
        return
    if not os.access(place, os.W_OK):
        message = f"{place} can only be read by this user: traces can be shown, and nothing is recorded."
        advice = "Change its owner or mode, or name another one with WHYOPS_HOME or --home."
        yield Finding("home", "problem", message, advice)
        return
    message = f"{path} is writable." if place == path else f"{path} is made when something is recorded."
    yield Finding("home", "ok", message)
    if place == path:
        yield from _open_to_others(path)
    free = shutil.disk_usage(place).free
    room = f"{free / 1e9:,.1f} GB are free on its disk."
    if free < _LITTLE_ROOM:
        state: State = "problem" if free < _NO_ROOM else "warning"
        yield Finding("disk", state, room, "Free some, or records are kept in memory and then dropped.")
    else:
        yield Finding("disk", "ok", room)
    if is_mappable(place, MAPPABLE):
        yield Finding("file system", "ok", "The journal is written through memory, which survives kill -9.")
    elif sys.platform == "linux":
        message = "This file system cannot be trusted with a memory map: each record is a system call, which is slower."
        yield Finding(
            "file system", "warning", message, "Put the home on a local disk (ext4, xfs) if you record much."
        )
    else:
        yield Finding("file system", "ok", "Each record is written with a system call on this platform.")


def _open_to_others(home: Path) -> Iterator[Finding]:
    """Check that nobody else can enter a home, or read what is in it."""
    modes = [(home, 0o700), (home / JOURNAL, 0o700)]
    modes += [
        (home / name, 0o600)
        for name in (
            SERVER_FILE,
            SEARCH_FILE,
            SPANS_FILE,
            SPANS_OUT_FILE,
            FORWARD_FILE,
            WAITING_FILE,
            REJECTED_FILE,
        )
    ]
    for place, mode in modes:
        with contextlib.suppress(OSError):
            if stat.S_IMODE(place.stat().st_mode) & 0o077:
                yield Finding("home", "warning", f"Others may read {place}.", f"chmod {mode:o} {place}")


def store(path: Path, settings: Settings | None) -> Iterator[Finding]:
    """Check the local store, and those that were set aside."""
    file = path / STORE_FILE
    for aside in sorted(path.glob(f"{STORE_FILE}*.bad")):
        advice = f"`sqlite3 {aside} .recover` may save some of it. Delete it when it is of no use any more."
        yield Finding("store", "warning", f"A damaged store is kept as {aside}.", advice)
    if not os.path.lexists(file):
        yield Finding("store", "ok", "There are no traces yet; `whyops-trace demo` records one.")
        return
    try:
        mode = file.stat().st_mode
        with closing(Store(file)) as traces:
            count = traces.counts().total
            newest = traces.traces(1)
        size = file.stat().st_size
    except (StoreError, OSError) as error:
        yield Finding(
            "store", "problem", str(error), "Until then nothing can be shown or stored; the journal keeps it."
        )
        return
    if stat.S_IMODE(mode) & 0o077 and stat.S_ISREG(mode):
        is_closed = not stat.S_IMODE(file.stat().st_mode) & 0o077  # by whoever opens it
        message = (
            f"Others could read {file}; it is closed to them again."
            if is_closed
            else f"Others may read {file}."
        )
        yield Finding(
            "store", "warning", message, "Find out who opened it." if is_closed else f"chmod 600 {file}"
        )
    last = newest[0].last_at if newest else ""
    retention = (
        f" It is kept {settings.max_store_days:g} days, {_mib(settings.max_store_bytes)} at most."
        if settings
        else ""
    )
    message = f"{counted(count, 'trace')}, {_mib(size)}, format {1 + len(UPGRADES)}"
    yield Finding("store", "ok", f"{message}{f', the last of {clean(last)}' if last else ''}.{retention}")
    recorded = milliseconds(last)
    if recorded is not None and recorded / 1000 > time.time() + CLOCK_TOLERANCE:
        message = (
            "The last trace is of the future: this clock was set back, or that of its recorder is wrong."
        )
        yield Finding("clock", "warning", message, "Let the clock be set by the network (NTP).")


def waiting(path: Path) -> Iterator[Finding]:
    """Check what waits for sampling by outcome."""
    try:
        records = waiting_count(path)
    except StoreError as error:
        yield Finding("sampling", "problem", str(error))
        return
    if records:
        message = (
            f"{counted(records, 'record')} in {path / WAITING_FILE} {'wait' if records > 1 else 'waits'}"
        )
        advice = "What a dead process left there is sent by the next one of the same agent."
        yield Finding("sampling", "ok", f"{message} for the end of a trace, or to be sent.", advice)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"


def journal(path: Path, settings: Settings | None) -> Iterator[Finding]:
    """Check the records that wait for delivery, and the events that a server refused."""
    try:
        state = survey(path)
        letters = sum(letter_counts(path).values())
    except OSError as error:
        yield Finding("journal", "problem", str(error), "Make the home readable for this user.")
        return
    findings = [finding for stream in state.streams for finding in _stream(path, settings, stream)]
    if state.bad:
        one = len(state.bad) == 1
        files = counted(len(state.bad), "file")
        message = (
            f"{files} of the journal {'is' if one else 'are'} damaged or of another version, and set aside."
        )
        purge = command_line("journal", "purge", "--all", home=path)
        findings.append(
            Finding("journal", "warning", message, f"`{purge}` deletes {'it' if one else 'them'}.")
        )
    if not findings:
        running = sum(len(stream.segments) - len(stream.left) for stream in state.streams)
        message = (
            "Nothing is left behind." if not running else "Nothing is left behind; running processes use it."
        )
        findings.append(Finding("journal", "ok", message))
    yield from findings
    if letters:
        purge = command_line("journal", "purge", "--rejected", home=path)
        message = f"A server refused {counted(letters, 'event')}: {path / REJECTED_FILE} has its words."
        yield Finding("refused events", "warning", message, f"Read it; `{purge}` deletes it.")


def _stream(path: Path, settings: Settings | None, stream: Stream) -> Iterator[Finding]:
    agent = clean(stream.header.agent)
    for name, waiting in stream.waiting.items():
        if waiting.left:
            blocked = why_not(settings, stream.header) if settings and name == SERVER else ""
            flush = command_line("journal", "flush", home=path)
            advice = f"They wait because {blocked}." if blocked else f"`{flush}` delivers them."
            message = f"{waiting.left:,} records of {agent} wait for {clean(name)}."
            yield Finding("journal", "warning", message, advice)
    if settings is not None and stream.size > _FULL * settings.max_journal_bytes:
        message = f"The journal of {agent} takes {_mib(stream.size)} of {_mib(settings.max_journal_bytes)}."
        advice = (
            "When it is full the oldest records are dropped: raise WHYOPS_MAX_JOURNAL_BYTES, or deliver them."
        )
        yield Finding("journal", "warning", message, advice)


def viewer(path: Path) -> Finding:
    """Check for a running server that shows this home."""
    url = running(path)
    if url is not None:
        return Finding("viewer", "ok", f"It shows this home at {clean(url)}.")
    return Finding("viewer", "ok", "It is not running; `whyops-trace serve` starts it.")
