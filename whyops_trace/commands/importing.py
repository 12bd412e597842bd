"""``whyops-trace import``: stores a trace that another product stores."""

from __future__ import annotations

import json
from pathlib import Path

import click

from whyops_trace._lens.place import is_address
from whyops_trace._reading.excerpt import clean
from whyops_trace.commands.common import home_option
from whyops_trace.commands.elsewhere import Lens, bring_in, lens_options


@click.command("import", epilog="Example: whyops-trace import http://localhost:16686/trace/TRACE")
@click.argument("address")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object with the id of the trace.")
@lens_options
@home_option
def import_(address: str, as_json: bool, lens: Lens, home: Path) -> None:
    """
    Store a trace that another product stores, so that it is among those of this machine.

    ADDRESS is that of its page, or of the API that answers with it: of Jaeger, Tempo, Phoenix, MLflow, Langfuse, or of
    a ClickHouse table. What came of it since an earlier import is added. It is kept as long as any other trace.
    """
    if not is_address(address):
        raise click.UsageError("ADDRESS begins with http:// or https://.")
    trace_id = bring_in(home, address, lens)
    if as_json:
        click.echo(json.dumps({"traceId": trace_id}))
    else:
        click.echo(f"Stored {clean(trace_id)}: whyops-trace show {clean(trace_id)}")
