"""What the commands of the command line have in common."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from rich.console import Console

from whyops_trace._home import home_directory
from whyops_trace.exceptions import WhyOpsError

F = TypeVar("F", bound=Callable[..., Any])

#: Columns of a line that is not for a terminal, where nothing is cut off.
_UNBOUNDED: Final = 1_000


class Commands(click.Group):
    """A group whose commands end a mistake of the user's with one line on standard error and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command asked for."""
        try:
            return super().invoke(ctx)
        except WhyOpsError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader has seen enough; click ends quietly
                raise
            raise click.ClickException(str(error)) from error


def home_option(command: F) -> F:
    """Add ``--home``, which the command gets as an absolute ``home: Path``."""
    return click.option(
        "--home",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="WHYOPS_HOME",
        default="~/.whyops",
        show_default=True,
        show_envvar=True,
        callback=lambda _context, _option, path: home_directory(path),
        help="Where the journal and the local store are.",
    )(command)


def console() -> Console:
    """Return standard output for tables: as wide as the terminal, or nothing is cut off."""
    return Console(width=None if sys.stdout.isatty() else _UNBOUNDED, highlight=False, emoji=False)


def when(timestamp: str) -> str:
    """Return a wire timestamp in local time, without the year, since nothing is kept for long; "" if it is none."""
    try:
        return datetime.fromisoformat(timestamp).astimezone().strftime("%m-%d %H:%M")
    except ValueError:
        return ""
