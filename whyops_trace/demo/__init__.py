"""
``whyops-trace demo``: a small agent that really works, and the trace it leaves.

:mod:`.agent` is the part to read, as it shows how an agent is traced; :mod:`.shop` holds its tools, and
:mod:`.scripted` the model, which needs no network and no key.
"""

from __future__ import annotations

import random
import shlex
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import click

_TICKET = """\
The teapot of order 8841 came with a broken lid. Can I have my money back?
And where is the rest of what I ordered? - Mia Schneider, 7 March 2026"""


@click.command(epilog="Example: whyops-trace demo")
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the trace is stored.  [default: WHYOPS_HOME, or ~/.whyops]",
)
def demo(home: Path | None) -> None:
    """
    Run a small agent and show the trace it leaves.

    It handles a customer's ticket: it asks a model, which is scripted and served on this machine, and runs the
    tools the model calls, on a real database and real files. Nothing leaves the machine, and no key is needed.
    """
    from whyops_trace import WhyOps
    from whyops_trace.demo import agent, scripted
    from whyops_trace.demo.shop import Shop
    from whyops_trace.exporters.local import STORE_FILE
    from whyops_trace.store import Store
    from whyops_trace.tree import build, write_tree

    trace_id = f"demo-{random.getrandbits(24):06x}"
    # Local and stored, whatever the environment says: this is what the demo shows.
    client = WhyOps("", "demo", home=home, tracing="local", store=True, console=False)
    with TemporaryDirectory() as folder, scripted.serve() as url:
        letter = agent.handle_ticket(client, trace_id, url, Shop(Path(folder)), _TICKET)
    tally = client.close_sync(timeout=5)["local"]
    if tally.delivered < tally.emitted:
        raise click.ClickException(
            f"Nothing can be stored in {client.settings.home}; name a folder with --home."
        )
    click.echo(f"A customer wrote:\n\n{_TICKET}\n\nThe agent answered:\n\n{letter}\n\nWhat it did:\n")

    store = Store(client.settings.home / STORE_FILE)
    write_tree(build(store.events(trace_id), store.ended_processes().__contains__), sys.stdout)
    store.close()

    again = "" if home is None else f" --home {shlex.quote(str(home))}"
    click.echo(f"\nSee it again:     whyops-trace show {trace_id}{again}")
    click.echo(f"See every trace:  whyops-trace ls{again}")
