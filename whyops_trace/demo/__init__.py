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

import click

from whyops_trace._home import STORE_FILE, command_line
from whyops_trace.commands.common import home_option

_TICKET = """\
The teapot of order 8841 came with a broken lid. Can I have my money back?
And where is the rest of what I ordered? - Mia Schneider, 7 March 2026"""


@click.command(epilog="Example: whyops-trace demo")
@home_option
def demo(home: Path) -> None:
    """
    Run a small agent and show the trace it leaves.

    It handles a customer's ticket: it asks a model, which is scripted and served on this machine, and runs the
    tools the model calls, on a real database and real files. Nothing leaves the machine, and no key is needed.
    """
    from whyops_trace import WhyOps
    from whyops_trace.demo import agent, scripted
    from whyops_trace.demo.shop import Shop
    from whyops_trace.exporters.local import LocalExporter
    from whyops_trace.store import Store
    from whyops_trace.tree import build, write_tree

    trace_id = f"demo-{random.getrandbits(24):06x}"
    # Local and stored, with any environment: the demo shows the stored trace.
    local = LocalExporter(home / STORE_FILE, hint=False, retention=None)
    client = WhyOps("", "demo", home=home, tracing="local", store=False, console=False, exporters=[local])
    with TemporaryDirectory() as folder, scripted.serve() as url:
        letter = agent.handle_ticket(client, trace_id, url, Shop(Path(folder)), _TICKET)
    tally = client.close_sync(timeout=5)["local"]
    if tally.delivered < tally.emitted:
        raise click.ClickException(f"Nothing can be stored in {home}; name a folder with --home.")
    click.echo(f"A customer wrote:\n\n{_TICKET}\n\nThe agent answered:\n\n{letter}\n\nWhat it did:\n")

    with contextlib.closing(Store(home / STORE_FILE)) as store:
        write_tree(build(store.events(trace_id), store.ended_processes().__contains__), sys.stdout)
    click.echo(f"\nSee it again:     {command_line('show', trace_id, home=home)}")
    click.echo(f"In the browser:   {command_line('view', trace_id, home=home)}")
    click.echo(f"See every trace:  {command_line('ls', home=home)}")
