"""Traces that another product stores, in commands that take the name of a trace: its address is one."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, cast

import click

from whyops_trace._home import STORE_FILE
from whyops_trace._lens.place import is_address
from whyops_trace._lens.products import PRODUCTS
from whyops_trace._reading.excerpt import counted
from whyops_trace.commands.common import stored_traces
from whyops_trace.exceptions import WhyOpsError
from whyops_trace.store import Store

F = TypeVar("F", bound=Callable[..., Any])

#: Nanoseconds of a second.
_NS: Final = 1_000_000_000


class Lens(NamedTuple):
    """
    The options that say how a trace is read that another product stores.

    Attributes:
        product: The name of the product, "" to tell it by the address.
        headers: Further headers of the requests.
    """

    product: str
    headers: tuple[tuple[str, str], ...]


class Named(NamedTuple):
    """A trace that a command was asked for: the store that it is in, and its id there."""

    store: Store
    trace_id: str


def lens_options(command: F) -> F:
    """Add ``--from`` and ``--header``, which the command receives as ``lens``."""

    @functools.wraps(command)
    def wrapped(*arguments: Any, product: str | None, headers: Sequence[str], **options: Any) -> Any:
        return command(*arguments, lens=Lens(product or "", tuple(map(_header, headers))), **options)

    product = click.option(
        "--from",
        "product",
        type=click.Choice(sorted(PRODUCTS)),
        metavar="PRODUCT",
        help=f"Of which product an address is, if its form does not tell: {', '.join(sorted(PRODUCTS))}.",
    )
    headers = click.option(
        "--header",
        "headers",
        multiple=True,
        metavar="'NAME: VALUE'",
        help="A header of the requests to an address; may be given several times.",
    )
    return cast("F", product(headers(wrapped)))


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not (colon and name.strip() and text.isascii() and text.isprintable()):
        raise click.BadParameter("write a name, a colon and a value in ASCII.", param_hint="--header")
    return name.strip(), value.strip()


def check_lens(names: Sequence[str], lens: Lens) -> None:
    """
    Check that the options of the lens have an address to go with.

    Raises:
        click.UsageError: if they have none.
    """
    if any(lens) and not any(map(is_address, names)):
        raise click.UsageError("--from and --header go with the address of a trace.")


@contextlib.contextmanager
def named_traces(home: Path, names: Sequence[str], lens: Lens) -> Iterator[list[Named]]:
    """
    Lend the traces that a command was asked for, in order.

    Those with an address are in temporary stores.

    Raises:
        WhyOpsError: if one is not there, or cannot be read.
    """
    check_lens(names, lens)
    with contextlib.ExitStack() as stack:
        traces: list[Named] = []
        own: Store | None = None
        for name in names:
            if is_address(name):
                place, trace_id = stack.enter_context(fetched(name, lens))
                store = stack.enter_context(contextlib.closing(Store(place / STORE_FILE)))
                traces.append(Named(store, trace_id))
            else:
                own = own or stack.enter_context(stored_traces(home))
                traces.append(Named(own, own.resolve(name)))
        yield traces


@contextlib.contextmanager
def fetched(url: str, lens: Lens) -> Iterator[tuple[Path, str]]:
    """
    Lend a temporary home with the trace of an address in it, and its id there. The home is deleted afterwards.

    Raises:
        WhyOpsError: as :func:`bring_in`.
    """
    with tempfile.TemporaryDirectory(prefix="whyops-", ignore_cleanup_errors=True) as folder:
        yield Path(folder), bring_in(Path(folder), url, lens)


def bring_in(home: Path, url: str, lens: Lens) -> str:
    """
    Store the trace of an address in a home, as if its spans had been sent there, and return its id.

    Raises:
        WhyOpsError: if it cannot be had, read or stored.
    """
    # They take longer to load than most commands to run.
    from whyops_trace._lens.fetching import fetch
    from whyops_trace._values.processor import Processor
    from whyops_trace.server.inbox import Inbox
    from whyops_trace.server.joining import GIVEN_UP, Joiner
    from whyops_trace.settings import MAX_EVENT_BYTES

    name, batch = fetch(url, lens.product, lens.headers)
    if batch.refused:
        click.echo(f"{counted(len(batch.refused), 'span')} cannot be read: {batch.refused[0]}", err=True)
    trace_id = batch.spans[0].trace_id
    batch.spans = [span for span in batch.spans if span.trace_id == trace_id]
    batch.logs = [log for log in batch.logs if log.trace_id == trace_id]
    is_quiet = max(max(span.start_ns, span.end_ns) for span in batch.spans) / _NS < time.time() - GIVEN_UP
    processor = Processor(max_event_bytes=MAX_EVENT_BYTES, sample_rate=1)
    inbox = Inbox(home, processor)
    with contextlib.closing(inbox), contextlib.closing(Store(home / STORE_FILE)) as store:
        inbox.add(batch)
        Joiner(inbox, store, processor, given_up=0 if is_quiet else GIVEN_UP).join([trace_id])
        found = inbox.find(trace_id)
        inbox.sweep(store.known)
    if found is None or not found.name:
        raise WhyOpsError(f"The trace {name!r} cannot be read from its spans.")
    return found.name
