"""What the commands of the command line have in common."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from whyops_trace._home import home_directory
from whyops_trace.exceptions import WhyOpsError

F = TypeVar("F", bound=Callable[..., Any])


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
