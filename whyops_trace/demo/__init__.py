"""
``whyops-trace demo``: a small working agent, and the trace it leaves.

:mod:`.agent` is the part to read: it shows the tracing of an agent. :mod:`.shop` holds its tools, and
:mod:`.scripted` the model, which needs no network and no key.
"""

from __future__ import annotations

import contextlib
import random
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import click

from whyops_trace._home import STORE_FILE, command_line
from whyops_trace.commands.common import home_option

if TYPE_CHECKING:
    from whyops_trace.types import Tally

_TICKET = """\
The teapot of order 8841 came with a broken lid. Can I have my money back?
And where is the rest of what I ordered? - Mia Schneider, 7 March 2026"""


#: Seconds to wait for a server.
_PATIENCE: Final = 60.0


@click.command(epilog="Example: whyops-trace demo")
@click.option("--server", "to_server", is_flag=True, help="Also report to the server of WHYOPS_API_KEY.")
@home_option
def demo(to_server: bool, home: Path) -> None:
    """
    Run a small agent and show the trace it leaves.

    It handles a customer's ticket: it asks a model, which is scripted and served on this machine, and runs the
    tools the model calls, on a real database and real files. Nothing leaves the machine, and no key is needed.

    With --server the trace also goes to the WhyOps server of the key, under the agent "demo". Exits with 1 if the
    server does not take it.
    """
    from whyops_trace import ConfigurationError, WhyOps
    from whyops_trace.demo import agent, scripted
    from whyops_trace.demo.shop import Shop
    from whyops_trace.exporters.local import LocalExporter
    from whyops_trace.store import Store
    from whyops_trace.tree import build, write_tree

    trace_id = f"demo-{random.getrandbits(24):06x}"
    # Local and stored, with any environment: the demo shows the stored trace.
    local = LocalExporter(home / STORE_FILE, hint=False, retention=None)
    try:
        client = WhyOps(
            None if to_server else "",
            "demo",
            agent.METADATA if to_server else None,
            home=home,
            tracing="on" if to_server else "local",
            store=False,
            console=False,
            exporters=[local],
        )
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from error
    settings = client.settings
    if to_server and not settings.server:
        raise click.ClickException(
            "--server needs the key of a WhyOps account in WHYOPS_API_KEY, and for a server of your own its address in "
            "WHYOPS_ANALYSE_URL."
        )
    with TemporaryDirectory() as folder, scripted.serve() as url:
        letter = agent.handle_ticket(client, trace_id, url, Shop(Path(folder)), _TICKET)
    ledger = client.close_sync(timeout=_PATIENCE if to_server else 5)
    tally = ledger["local"]
    if tally.delivered < tally.emitted:
        raise click.ClickException(f"Nothing can be stored in {home}; name a folder with --home.")
    click.echo(f"A customer wrote:\n\n{_TICKET}\n\nThe agent answered:\n\n{letter}\n\nWhat it did:\n")

    with contextlib.closing(Store(home / STORE_FILE)) as store:
        write_tree(build(store.events(trace_id), store.ended_processes().__contains__), sys.stdout)
    click.echo(f"\nSee it again:     {command_line('show', trace_id, home=home)}")
    click.echo(f"In the browser:   {command_line('view', trace_id, home=home)}")
    click.echo(f"See every trace:  {command_line('ls', home=home)}")
    if to_server:
        _tell_of_server(ledger["whyops"], settings.analyse_url, trace_id)
        click.echo(f"Read it back:     {command_line('verify', trace_id, home=home)}")


def _tell_of_server(tally: Tally, url: str, trace_id: str) -> None:
    """Say that the server has a trace, or raise the reason why it has not."""
    if tally.delivered < tally.emitted:
        raise click.ClickException(
            f"The server at {url} has {tally.delivered} of the {tally.emitted} events; the messages above tell why."
        )
    click.echo(f"On the server:    {tally.delivered} events of the trace {trace_id}, agent demo, at {url}")
