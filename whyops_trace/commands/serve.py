"""``whyops-trace serve`` and ``whyops-trace view``: the collector and the viewer, and a browser that shows a trace."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import ipaddress
import json
import os
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from whyops_trace._extras import install_hint
from whyops_trace._lens.place import is_address
from whyops_trace.commands.common import check_writable, home_option
from whyops_trace.commands.elsewhere import Lens, check_lens, fetched, lens_options, named_traces
from whyops_trace.commands.receivers import check_receivers, forward_exporters
from whyops_trace.commands.serving import forget, note, running
from whyops_trace.server import trace_url
from whyops_trace.settings import at_hand

if TYPE_CHECKING:
    from whyops_trace.exporters.otlp.forwarding import ForwardExporter

_PORT: Final = 8765
#: Fewest characters of a key: anyone who reaches the server can guess without limit.
_KEY_LENGTH: Final = 16
#: Thresholds of the garbage collector, for :func:`gc.set_threshold`. The records of a trace are many objects that stay.
#: By default the collector scans all of them again and again while they are read, for a third of the time.
_COLLECTED: Final = 50_000, 20, 100
#: The option of glibc for the number of heaps. With one heap for each thread that reads a trace, a sixth of the memory
#: stays unused.
_ARENAS: Final = -8
_HOW_TO_MAKE_A_KEY: Final = (
    "set WHYOPS_SERVE_KEY to the output of:"
    " python -c \"import secrets; print('whyops_' + secrets.token_urlsafe(24))\""
)


@click.command("serve", epilog="Example: whyops-trace serve --port 8800 --open")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    default=_PORT,
    show_default=True,
    type=click.IntRange(0, 65_535),
    help="The port; 0 for any that is free.",
)
@click.option(
    "--key",
    default="",
    envvar="WHYOPS_SERVE_KEY",
    show_envvar=True,
    help="The key that every request must carry, if there is one.",
)
@click.option(
    "--allow-host", "allowed", multiple=True, metavar="NAME", help="A name that others reach this machine by."
)
@click.option(
    "--forward",
    "receivers",
    multiple=True,
    metavar="URL",
    envvar="WHYOPS_SERVE_FORWARD",
    show_envvar=True,
    help="A receiver of OTLP that gets what comes here; on for OTEL_EXPORTER_OTLP_ENDPOINT.",
)
@click.option(
    "--forward-header",
    "headers",
    multiple=True,
    metavar="NAME=VALUE",
    help="A header for the receivers, in place of OTEL_EXPORTER_OTLP_HEADERS.",
)
@click.option(
    "--forward-content/--no-forward-content",
    "content",
    default=None,
    help="Whether messages, arguments and results are forwarded.  [default: WHYOPS_OTLP_CONTENT]",
)
@click.option("--annotate", is_flag=True, help="Let scores and notes be given on the pages.")
@click.option("--open", "opens", is_flag=True, help="Open the browser.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object that says where it listens.")
@home_option
def serve(
    host: str,
    port: int,
    key: str,
    allowed: Sequence[str],
    receivers: Sequence[str],
    headers: Sequence[str],
    content: bool | None,
    annotate: bool,
    opens: bool,
    as_json: bool,
    home: Path,
) -> None:
    """
    Show traces in the browser, and collect what WhyOps SDKs report, until Ctrl-C.

    It listens on this machine only. With another --host everyone needs a key.
    """
    _check_key(host, key)
    if annotate or receivers:
        check_writable(home)
    forwards = forward_exporters(receivers, headers, content, home)
    listening = _listen(host, port)
    url = _url(listening, host)
    check_receivers(forwards, listening.getsockname()[1], [*allowed, host, socket.gethostname()])

    def ready() -> None:
        if opens:
            _open_aside(url)
        if as_json:
            click.echo(
                json.dumps({"url": url, "collector": f"{url}/api", "pid": os.getpid(), "home": str(home)})
            )
        else:
            click.echo(f"The traces of {home} are at {url}")
            click.echo(f'WhyOps SDKs report to it with analyse_base_url="{url}/api"')
            for exporter in forwards:
                what = "" if exporter.settings.content else ", without content"
                click.echo(f"What comes is forwarded to {exporter.settings.shown}{what}")
            click.echo("Ctrl-C stops it.")

    names = [*allowed, *([] if _is_wildcard(host) else [host])]
    _run(home, listening, url, key, names, ready, annotates=annotate, forwards=forwards)


@click.command("view", epilog="Example: whyops-trace view latest")
@click.argument("trace", required=False)
@click.option("--no-browser", "quiet", is_flag=True, help="Only print the address.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the address as a JSON object, and open no browser."
)
@lens_options
@home_option
def view(trace: str | None, quiet: bool, as_json: bool, lens: Lens, home: Path) -> None:
    """
    Open the browser at a trace, or at the list of all.

    TRACE is its id, the beginning of its id, or "latest". The page comes from the server that `whyops-trace serve`
    runs for this home. Without one this command serves it, until Ctrl-C.

    TRACE may also be the address of a trace that another product stores. This command then serves the page of that
    trace alone, until Ctrl-C, and keeps nothing of it.
    """
    if trace is not None and is_address(trace):
        with fetched(trace, lens) as (place, trace_id):
            _view(place, trace_url(trace_id), quiet, as_json)
        return
    _view(home, _path(home, trace, lens), quiet, as_json)


def _view(home: Path, path: str, quiet: bool, as_json: bool) -> None:
    """Open the browser at a page of the server that shows a home, which is this process if no other one does."""

    def present(url: str, browse: Callable[[str], None]) -> None:
        click.echo(json.dumps({"url": url + path}) if as_json else url + path)
        if not (quiet or as_json):
            browse(url + path)

    running_url = running(home)
    if running_url is not None:
        present(running_url, _open)
        return
    listening = _listen("127.0.0.1", _PORT, or_any=True)
    url = _url(listening, "127.0.0.1")

    def ready() -> None:
        present(url, _open_aside)
        click.echo("Ctrl-C stops the viewer.", err=True)

    _run(home, listening, url, "", (), ready)


def _check_key(host: str, key: str) -> None:
    """
    Check that nobody on another machine can read traces without a key.

    Raises:
        click.UsageError: if somebody could, or if the key cannot be used.
    """
    if not key and not _is_loopback(host):
        raise click.UsageError(
            f"--host {host} lets other machines in, so it takes a key: {_HOW_TO_MAKE_A_KEY}"
        )
    if key and len(key) < _KEY_LENGTH:
        raise click.UsageError(f"The key has less than {_KEY_LENGTH} characters: {_HOW_TO_MAKE_A_KEY}")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise click.UsageError(f"The key holds what cannot be sent in a header: {_HOW_TO_MAKE_A_KEY}")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_wildcard(host: str) -> bool:
    return host.strip("[]") in ("", "0.0.0.0", "::")  # noqa: S104 - nothing is bound here


def _listen(host: str, port: int, *, or_any: bool = False) -> socket.socket:
    """
    Return a socket that listens.

    Args:
        host: The address.
        port: The port; 0 for any.
        or_any: True to use any other port if this one is taken.

    Raises:
        click.ClickException: if that is not possible. The message has the remedy.
    """
    address = host.strip("[]")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        listening = socket.create_server((address, port), family=family, backlog=512)
        # asyncio sets this only for its own sockets. Without it each answer waits 40 ms for an acknowledgement.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        if error.errno == errno.EADDRINUSE and or_any:
            return _listen(host, 0)
        if error.errno == errno.EADDRINUSE:
            hint = "choose another with --port, or --port 0 for any that is free"
            raise click.ClickException(f"Port {port} of {host} is in use: {hint}.") from error
        reason = error.strerror or str(error)
        raise click.ClickException(f"Cannot listen on port {port} of {host}: {reason}.") from error


def _url(listening: socket.socket, host: str) -> str:
    name = "127.0.0.1" if _is_wildcard(host) else host.strip("[]")
    return f"http://{f'[{name}]' if ':' in name else name}:{listening.getsockname()[1]}"


def _path(home: Path, trace: str | None, lens: Lens) -> str:
    """
    Return the path of a trace's page, or of the list.

    Raises:
        TraceNotFoundError: if no trace has this name, or more than one.
    """
    if trace is None:
        check_lens((), lens)
        return "/"
    with named_traces(home, [trace], lens) as [(_, trace_id)]:
        return trace_url(trace_id)


def _open(url: str) -> None:
    """Open the browser."""
    if not webbrowser.open(url):
        click.echo(f"There is no browser to open: go to {url}", err=True)


def _open_aside(url: str) -> None:
    """Open the browser in a thread, since that may take time and the server has to answer meanwhile."""
    threading.Thread(target=_open, args=(url,), name="browser", daemon=True).start()


def _run(
    home: Path,
    listening: socket.socket,
    url: str,
    key: str,
    names: Sequence[str],
    ready: Callable[[], None],
    *,
    annotates: bool = False,
    forwards: Sequence[ForwardExporter] = (),
) -> None:
    """
    Serve until a signal comes.

    Raises:
        click.ClickException: if a needed package is not installed.
    """
    token = secrets.token_urlsafe(24)

    def note_and_say() -> None:
        note(home, url, token)
        try:
            ready()
        except OSError:  # nobody reads the output any more, as in `serve | head -1`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    with contextlib.closing(listening):
        try:
            # These modules take a quarter of a second to load, which no other command should wait for.
            from whyops_trace.server.app import create_app
            from whyops_trace.server.running import Server
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "jinja2", "markupsafe"):
                raise
            raise click.ClickException(f"The viewer is not installed: {install_hint('ui')}") from error
        gc.set_threshold(*_COLLECTED)
        with contextlib.suppress(AttributeError, OSError, TypeError):
            ctypes.CDLL(None).mallopt(_ARENAS, 1)
        retention = at_hand(home).retention
        application = create_app(
            home,
            key=key,
            allowed_hosts=names,
            retention=retention,
            token=token,
            annotates=annotates,
            forwards=forwards,
        )
        try:
            Server(application, note_and_say).run(sockets=[listening])
        finally:
            forget(home)
