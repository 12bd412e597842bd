"""The common parts of the commands: types of options, groups, the store, and forms of output."""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import keyword
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from whyops_trace._clock import wire_time
from whyops_trace._home import JOURNAL, STORE_FILE, home_directory, is_writable
from whyops_trace.exceptions import StoreError, WhyOpsError
from whyops_trace.store import Score, ScoreTest, Store

if TYPE_CHECKING:
    from rich.console import Console

    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # not generic before click 8.3

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

#: Seconds of each unit of a duration.
_SECONDS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
#: Bytes of each unit of a size, without the final B of the unit.
_BYTES: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}
_QUANTITY: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([a-z]*)", re.ASCII)

#: Bytes in the journals from which on their records take seconds to store.
_LARGE_BACKLOG: Final = 16 << 20
#: Columns of a line that is not for a terminal, so that nothing is cut off.
_UNBOUNDED: Final = 1_000


class Duration(ParamType):
    """A length of time such as ``90s``, ``12h`` or ``7d``, which becomes seconds; a bare number is seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        amount = value if isinstance(value, (int, float)) else _quantity(str(value), _SECONDS)
        if amount is None:
            self.fail(
                f"{value!r} is no length of time; write a number and ms, s, m, h, d or w: 90s, 12h, 7d.",
                param,
                ctx,
            )
        return float(amount)


class Size(ParamType):
    """A number of bytes such as ``100MB`` or ``1.5GiB``; a bare number is bytes."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes."""
        amount = value if isinstance(value, int) else _quantity(str(value), _BYTES, ending="b")
        if amount is None:
            self.fail(
                f"{value!r} is no size; write a number and kB, MB, GB, KiB, MiB or GiB: 100MB.", param, ctx
            )
        return int(amount)


class Moment(ParamType):
    """A time: ``2d`` for two days ago, or a date such as ``2026-11-20`` or ``2026-11-20T08:30``, local by default."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the time in wire form, as in records."""
        ago = _quantity(str(value), {unit: seconds for unit, seconds in _SECONDS.items() if unit})
        try:
            if ago is not None:
                return wire_time(datetime.now(UTC) - timedelta(seconds=ago))
            return wire_time(datetime.fromisoformat(str(value)))
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is no time; write 2d for two days ago, or a date: 2026-11-20T08:30.", param, ctx
            )


class ScoreCondition(ParamType):
    """A condition on a score, such as ``correct<0.5`` or ``helpful=down``."""

    name = "test"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> ScoreTest:
        """Return the condition."""
        try:
            return ScoreTest.of(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _quantity(text: str, units: dict[str, Any], ending: str = "") -> float | None:
    """Return an amount in the smallest unit, None if *text* is not one. Every unit may end in *ending*."""
    match = _QUANTITY.fullmatch(text.strip().lower())
    factor = units.get(match[2].removesuffix(ending)) if match else None
    return None if match is None or factor is None else float(match[1]) * factor


class Commands(click.Group):
    """
    A group whose commands end a mistake of the user's with one line on standard error and exit code 1.

    Args:
        modules: Module of each command that is loaded on demand, by the name of the command. The module has the command
            under that name, with an underscore after a keyword of Python.
        options: Other arguments of :class:`click.Group`.
    """

    def __init__(self, *, modules: Mapping[str, str] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._modules = modules or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted([*super().list_commands(ctx), *self._modules])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, None if there is none of that name."""
        if cmd_name not in self._modules:
            return super().get_command(ctx, cmd_name)
        name = cmd_name.replace("-", "_") + "_" * keyword.iskeyword(cmd_name)
        command: click.Command = getattr(importlib.import_module(self._modules[cmd_name]), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the requested command."""
        try:
            return super().invoke(ctx)
        except WhyOpsError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader has closed the pipe, and click ends quietly
                raise
            raise click.ClickException(str(error)) from error


@contextlib.contextmanager
def stored_traces(home: Path) -> Iterator[Store]:
    """
    Lend the store of a home, after taking in the records that ended processes left.

    If they are many, a terminal on standard error shows the progress. If they cannot be stored, it says so, and what
    was stored before can be read.

    Raises:
        StoreError: if the home cannot be read.
    """
    if home.exists() and not os.access(home, os.R_OK | os.X_OK):
        raise StoreError(f"{home} cannot be read by this user.")
    waiting = _journal_bytes(home)
    with contextlib.ExitStack() as stack:
        place = home
        if waiting:
            # These modules take longer to load than most commands to run.
            from whyops_trace._delivery.archive import readable

            place = stack.enter_context(readable(home))
            if is_writable(home):
                try:
                    _take_in(home, waiting)
                except StoreError as error:
                    click.echo(f"What ended processes left is not stored: {error}", err=True)
        yield stack.enter_context(contextlib.closing(Store(place / STORE_FILE)))


def check_writable(home: Path) -> None:
    """
    Check that something can be changed in a home.

    Raises:
        StoreError: if it can only be read.
    """
    if home.exists() and not is_writable(home):
        raise StoreError(f"{home} can only be read by this user: nothing can be changed there.")


def _take_in(home: Path, waiting: int) -> None:
    from whyops_trace._delivery.draining import take_in

    if waiting < _LARGE_BACKLOG:
        take_in(home)
        return
    from rich.console import Console
    from rich.progress import Progress

    terminal = Console(stderr=True)
    with Progress(console=terminal, transient=True, disable=not terminal.is_terminal) as progress:
        task = progress.add_task("storing what was recorded", total=waiting)
        take_in(home, lambda count: progress.advance(task, count))


def _journal_bytes(home: Path) -> int:
    """Return the size of the journals of a home."""
    size = 0
    for path in (home / JOURNAL).glob("*/*.seg"):
        with contextlib.suppress(FileNotFoundError):  # another process has delivered it
            size += path.stat().st_size
    return size


def echo_json_lines(items: Iterable[Mapping[str, Any]]) -> None:
    """Print a JSON array with one item a line, as they come."""
    # In ASCII, so that no text in it controls a terminal.
    separator = "["
    for item in items:
        sys.stdout.write(separator + json.dumps(item))
        separator = ",\n"
    click.echo("[]" if separator == "[" else "]")


def home_option(command: F) -> F:
    """Add ``--home``, which the command receives as an absolute ``home: Path``."""
    return click.option(
        "--home",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="WHYOPS_HOME",
        default="~/.whyops",
        show_default=True,
        show_envvar=True,
        callback=lambda _context, _option, path: home_directory(path),
        help="Directory of the journal and the store.",
    )(command)


def console() -> Console:
    """Return a console for tables on standard output: as wide as the terminal, else so wide that nothing is cut off."""
    from rich.console import Console  # which takes longer to load than a command without tables to run

    return Console(width=None if sys.stdout.isatty() else _UNBOUNDED, highlight=False, emoji=False)


def tracked(items: Iterable[T], doing: str, total: int) -> Iterable[T]:
    """Return the items. A terminal on standard error shows the progress of reading them."""
    from rich.console import Console
    from rich.progress import track  # takes longer to load than most commands to run

    terminal = Console(stderr=True)
    return track(
        items, doing, total=total, console=terminal, transient=True, disable=not terminal.is_terminal
    )


def when(timestamp: str) -> str:
    """Return a wire timestamp in local time, "" if it is not one. The year is left out, since no trace is kept long."""
    try:
        return datetime.fromisoformat(timestamp).astimezone().strftime("%m-%d %H:%M")
    except ValueError:
        return ""


def score_line(score: Score) -> str:
    """Return a score in one line with the step that it is on."""
    return f"{score.line}  #{score.step}" if score.step else score.line


def file_size(count: int) -> str:
    """Return a number of bytes in readable form: ``900 bytes``, ``12.3 kB``, ``512.0 MB``."""
    if count < 1_000:
        return f"{count} byte{'' if count == 1 else 's'}"
    size, unit = count / 1_000, "kB"
    for larger in ("MB", "GB"):
        if size >= 999.95:
            size, unit = size / 1_000, larger
    return f"{size:,.1f} {unit}"
