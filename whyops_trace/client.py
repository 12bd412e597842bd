"""
The client: settings, and the parts they are wired into. The first client made is the default one.

::

    WhyOps ── Recorder ── Journal ── Delivery ── Exporter
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from whyops_trace._clock import Clock, SystemClock
from whyops_trace._delivery.clients import Clients
from whyops_trace._delivery.destinations import deliveries_of, destinations_of, server_of
from whyops_trace._delivery.remains import say_what_is_left
from whyops_trace._delivery.syncing import Syncing
from whyops_trace._guard import attempt, guarded, warn_once
from whyops_trace._home import JOURNAL
from whyops_trace._journal.directory import MAPPABLE
from whyops_trace._journal.journal import Journal
from whyops_trace._limits import limits_of
from whyops_trace._recording.outside import active_span
from whyops_trace._recording.recorder import Recorder
from whyops_trace._values.outcomes import NotErrors
from whyops_trace._values.processor import Processor
from whyops_trace.exceptions import ConfigurationError
from whyops_trace.exporters.base import Exporter
from whyops_trace.headers import Headers, continued
from whyops_trace.open_calls import StepKind
from whyops_trace.sampling import TailSampling
from whyops_trace.settings import Settings, Tracing, resolve
from whyops_trace.tracing import Step, Trace, trace_on
from whyops_trace.types import (
    AgentInfo,
    AgentMetadata,
    BeforeRecord,
    ExceptionLike,
    Fsync,
    JournalMode,
    Ledger,
    OnLoop,
)

if TYPE_CHECKING:
    from whyops_trace.integrations import Attachment
    from whyops_trace.providers.clients import Family

T = TypeVar("T")

#: Seconds ``flush`` waits unless told otherwise.
FLUSH_TIMEOUT: Final = 10.0
#: Seconds the process waits at its exit for what is not delivered yet.
EXIT_TIMEOUT: Final = 2.0
#: Seconds in all if a server is answering then: a batch it has taken in is not sent again by the next process.
ANSWER_TIMEOUT: Final = 10.0


class WhyOps:
    """
    A client of whyops-trace: one for each agent in a process is enough.

    Every argument can come from the environment instead; an argument given wins. With a key records go to a WhyOps
    server; with none everything works locally: they go to the store that ``whyops-trace ls`` and ``show`` read. The
    first client made in a process is the default one, which :func:`trace`, :func:`step` and decorated functions outside
    any trace use.

    Guarantees: recording never waits for a network or for the store, no exception of the library reaches a traced
    call, and what was recorded when a call went on survives the death of the process.

    Args:
        api_key: Key of a WhyOps account (``WHYOPS_API_KEY``); begins with ``whyops_`` or ``YOPS-``.
        agent_name: Name of the agent (``WHYOPS_AGENT_NAME``; default: the program's name); 1 to 255 characters.
        agent_metadata: ``systemPrompt``, ``tools`` and ``description`` of the agent, which the server is told before
            its first event. A change makes a new version of the agent there.
        proxy_base_url: A self-hosted WhyOps proxy (``WHYOPS_PROXY_URL``).
        analyse_base_url: A self-hosted WhyOps server (``WHYOPS_ANALYSE_URL``), with its ``/api``.
        home: Directory of the journal and the local store (``WHYOPS_HOME``; default ``~/.whyops``).
        tracing: "on", "off" (nothing is recorded, no thread, no file) or "local" (nothing leaves the machine, even
            with a key) (``WHYOPS_TRACING``; default "on").
        store: True to keep records in the local store (``WHYOPS_STORE=on|off``; default: only if there is no key).
        console: True to print finished traces on standard error as trees (``WHYOPS_CONSOLE=tree``).
        otlp: True to export spans of OpenTelemetry to the receiver that ``OTEL_EXPORTER_OTLP_ENDPOINT`` names, or the
            URL of one (``WHYOPS_OTLP=on|URL``). They have no messages, arguments and results, unless
            ``WHYOPS_OTLP_CONTENT=on``.
        redact: More names of keys and parameters whose values are secrets, beside passwords, tokens and their like;
            and patterns, made by ``re.compile``, whose matches are secrets in any text.
        redact_keep: Names of keys whose values are no secrets, though they sound so, such as ``page_token``.
        before_record: Your own processor of records, called with the decoded values of each before it is written; what
            it returns is recorded. See :data:`~whyops_trace.types.BeforeRecord`.
        journal: How a record is written to the disk (``WHYOPS_JOURNAL``): "map", the default, through a memory map;
            "write" by a system call each time; "checked" and "write-checked" with a sum, by which a changed byte shows.
        fsync: When the journal waits for the disk (``WHYOPS_FSYNC``): "never", the default; "interval", a second after
            a record, beside the program; "always", with each record, before the call goes on.
        max_event_bytes: Bytes of a record at most, 10,000 or more; what is larger is cut (``WHYOPS_MAX_EVENT_BYTES``;
            default 1,000,000).
        max_history_bytes: Bytes of memory for the messages of earlier requests at most, so that each turn costs what is
            new in it (``WHYOPS_MAX_HISTORY_BYTES``; default 16 MiB). 0 keeps none.
        max_journal_bytes: Bytes of the records that wait on disk at most, 1,048,576 or more; when they are used up the
            oldest are dropped, and counted (``WHYOPS_MAX_JOURNAL_BYTES``; default 256 MiB).
        sample_rate: The share of traces that are recorded, 0 to 1; the others cost nothing (``WHYOPS_SAMPLE_RATE``;
            default 1). What decides is a hash of the trace id, so every process decides alike.
        tail_sampling: The traces that remote destinations get, by what became of them: a
            :class:`~whyops_trace.TailSampling`, or its share alone, 0 to 1 (``WHYOPS_TAIL_SAMPLING``; default: all).
        max_store_days: Days that the local store keeps a trace after it was last written to
            (``WHYOPS_MAX_STORE_DAYS``; default 7).
        max_store_bytes: Bytes that the local store takes at most, 1,048,576 or more; when they are used up the oldest
            traces are deleted (``WHYOPS_MAX_STORE_BYTES``; default 512 MiB).
        proxy_wait: Seconds at most that a request through the WhyOps proxy waits until the server has stored the newest
            record before it, over all its tries (``WHYOPS_PROXY_WAIT``; default 1). 0 does not wait.
        send_raw_responses: True to send a WhyOps server the responses of models as the provider had them
            (``WHYOPS_SEND_RAW_RESPONSES=on|off``; default: they stay on this machine).
        link: False to ignore what the headers of requests tell of the traces of others, which strangers could write to
            then (``WHYOPS_LINK=on|off``; default: they are gone on with).
        not_errors: Exceptions that are no failures, for every call and block; see :func:`traced_tool`.
        exporters: More destinations.
        exit_timeout: Seconds the process waits at its exit for what is not delivered yet.
        answer_timeout: Seconds it waits in all if a server is answering a request by then.
        clock: Time, for tests.

    Attributes:
        settings: The settings that it obeys, whether they came as arguments or from the environment.
        agent_metadata: The metadata of the agent as the server is told it; None if there is none.
        exit_timeout: As the argument; it may be changed at any time.
        answer_timeout: As the argument; it may be changed at any time.
        recorder: The part that numbers records and writes them; for the library itself.

    Raises:
        ConfigurationError: if a setting cannot be obeyed.
    """

    def __init__(
        self,
        api_key: str | None = None,
        agent_name: str | None = None,
        agent_metadata: AgentMetadata | None = None,
        proxy_base_url: str | None = None,
        analyse_base_url: str | None = None,
        *,
        home: str | os.PathLike[str] | None = None,
        tracing: Tracing | bool | None = None,
        store: bool | None = None,
        console: bool | None = None,
        otlp: bool | str | None = None,
        redact: Iterable[str | re.Pattern[str]] = (),
        redact_keep: Iterable[str] = (),
        before_record: BeforeRecord | None = None,
        journal: JournalMode | None = None,
        fsync: Fsync | None = None,
        max_event_bytes: int | None = None,
        max_history_bytes: int | None = None,
        max_journal_bytes: int | None = None,
        sample_rate: float | None = None,
        tail_sampling: TailSampling | float | None = None,
        max_store_days: float | None = None,
        max_store_bytes: int | None = None,
        proxy_wait: float | None = None,
        send_raw_responses: bool | None = None,
        link: bool | None = None,
        not_errors: Iterable[ExceptionLike] = (),
        exporters: Sequence[Exporter] = (),
        exit_timeout: float = EXIT_TIMEOUT,
        answer_timeout: float = ANSWER_TIMEOUT,
        clock: Clock | None = None,
    ) -> None:
        self.settings: Settings = resolve(
            api_key=api_key,
            agent_name=agent_name,
            proxy_base_url=proxy_base_url,
            analyse_base_url=analyse_base_url,
            home=home,
            tracing=tracing,
            store=store,
            console=console,
            otlp=otlp,
            journal=journal,
            fsync=fsync,
            max_event_bytes=max_event_bytes,
            max_history_bytes=max_history_bytes,
            max_journal_bytes=max_journal_bytes,
            sample_rate=sample_rate,
            tail_sampling=tail_sampling,
            max_store_days=max_store_days,
            max_store_bytes=max_store_bytes,
            proxy_wait=proxy_wait,
            send_raw_responses=send_raw_responses,
            link=link,
        )
        processor = Processor(
            redact,
            redact_keep,
            before=before_record,
            max_event_bytes=self.settings.max_event_bytes,
            sample_rate=self.settings.sample_rate,
        )
        if agent_metadata is not None:
            from whyops_trace.exporters.whyops.agent import check_metadata

            agent_metadata = check_metadata(agent_metadata)
        self.agent_metadata: AgentMetadata | None = agent_metadata
        self.exit_timeout = exit_timeout
        self.answer_timeout = answer_timeout
        self._closed_with = Ledger()
        self._server = server_of(self.settings, self.agent_metadata)
        destinations = destinations_of(self.settings, self._server, exporters)
        names = [exporter.name for exporter in destinations]
        stream = self.settings.stream(names)
        self._journal = Journal(
            self.settings.home / JOURNAL / stream,
            stream=stream,
            agent=self.settings.agent_name,
            destinations=names,
            ephemeral=[exporter.name for exporter in destinations if exporter.ephemeral],
            budget=self.settings.max_journal_bytes,
            mappable=() if self.settings.journal.startswith("write") else MAPPABLE,
            checked=self.settings.journal.endswith("checked"),
            fsync=self.settings.fsync,
        )
        self.recorder: Recorder = Recorder(
            self._journal,
            agent_name=self.settings.agent_name,
            processor=processor,
            clock=clock or SystemClock(),
            on=bool(destinations),
            max_history_bytes=self.settings.max_history_bytes,
            not_errors=NotErrors(not_errors),
        )
        self.recorder.serves = self._server is not None and bool(destinations)
        if any(exporter.continues_spans for exporter in destinations):
            self.recorder.outside = active_span
        self.recorder.links = self.settings.link
        if self._server is not None and self.recorder.serves:
            self.recorder.offsets = self._server.offsets
            self.recorder.secret = hashlib.sha256(self.settings.api_key.encode()).digest()
        self._deliveries = deliveries_of(
            destinations, self.settings, self.recorder, self._journal, self._server
        )
        self._syncing = Syncing(self.recorder, self._journal) if self.settings.fsync == "interval" else None
        clients.add(self)

    @property
    def agent_name(self) -> str:
        """Name of the agent."""
        return self.settings.agent_name

    def __repr__(self) -> str:
        where = ", ".join(self.stats()) or "nowhere"
        return f"<WhyOps {self.agent_name!r} -> {where}>"

    def trace(
        self,
        trace_id: str | None = None,
        *,
        external_user_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
        not_errors: Iterable[ExceptionLike] = (),
        max_tokens: int | None = None,
        max_cost: float | None = None,
        max_steps: int | None = None,
        max_seconds: float | None = None,
        on_loop: OnLoop | None = None,
    ) -> Trace:
        """
        Return a trace to record on, which is also a context manager for ``with`` and ``async with``.

        Without an id, inside an open trace of this client, it joins that one as a step; elsewhere it gets an id of its
        own. The id of a trace that exists, here or from another process, goes on with it.

        Args:
            trace_id: Your id of the workflow or conversation; 1 to 128 characters, best unique beyond your account.
            external_user_id: Your id of the user the agent acts for, from here on; 1 to 255 characters.
            metadata: About the trace as a whole; recorded with its next event.
            tags: Labels of the trace; recorded with its next event.
            not_errors: Exceptions with which its block may end without a failure; see :func:`traced_tool`.
            max_tokens: Tokens that models may use while its block is open, of prompts and answers, cached or not. Once
                that many are used, the next call or step is refused, and the block raises
                :class:`~whyops_trace.AgentRunaway`. The same holds for the other limits.
            max_cost: US dollars that models may cost; needs the extra ``prices``.
            max_steps: Number of calls and steps that may begin: of models, of tools, and with :func:`step`.
            max_seconds: Seconds after which no call or step may begin. One that runs is not interrupted.
            on_loop: What to do once a tool was called 5 times with the same arguments and the same result, and at each
                time more: ``"raise"`` refuses the next call; a function is called with the
                :class:`~whyops_trace.AgentRunaway` just before that, and refuses it by raising.

        Raises:
            InvalidEventError: if an id, the metadata or the tags are of the wrong type or size.
            ConfigurationError: if *not_errors* has something else than exceptions and names, a limit is none, or the
                extra for *max_cost* is not installed.
        """
        limits = limits_of(max_tokens, max_cost, max_steps, max_seconds, on_loop)
        made = trace_on(self.recorder, trace_id, external_user_id, metadata, tags, not_errors, limits=limits)
        made._state.shared &= made._joins
        return made

    def continue_from(
        self,
        headers: Headers,
        *,
        link: bool = True,
        external_user_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
        not_errors: Iterable[ExceptionLike] = (),
        max_tokens: int | None = None,
        max_cost: float | None = None,
        max_steps: int | None = None,
        max_seconds: float | None = None,
        on_loop: OnLoop | None = None,
    ) -> Trace:
        """Return the trace that headers tell of, recorded by this client; see :func:`continue_from`."""
        limits = limits_of(max_tokens, max_cost, max_steps, max_seconds, on_loop)
        return continued(self.recorder, headers, link, external_user_id, metadata, tags, not_errors, limits)

    def step(
        self,
        name: str,
        *,
        kind: StepKind = "step",
        input: Any = None,
        metadata: Mapping[str, Any] | None = None,
        not_errors: Iterable[ExceptionLike] = (),
    ) -> Step:
        """
        Return a named part of the workflow, for ``with`` and ``async with``; see :func:`step`.

        It belongs to the trace that is open where it is entered; outside any, it makes a trace of this client's.
        """
        return Step(
            name,
            kind=kind,
            input=input,
            metadata=metadata,
            not_errors=not_errors,
            recorder=lambda: self.recorder,
        )

    def openai(self, client: T, *, proxy: bool | None = None, fallback: bool = False) -> T:
        """
        Return a client of the openai package like *client*, whose calls of models are turns of the trace.

        With a key its requests go through the WhyOps proxy, which reports the turns; with none they go to the provider
        and are recorded from here. Synchronous and asynchronous clients are taken alike, and the copies that
        ``with_options()`` and ``copy()`` make of the one returned are traced as well.

        Args:
            client: The client; it stays as it is.
            proxy: True to send requests through the WhyOps proxy; by default they go there if there is a key.
            fallback: True to send a request to the provider, with the client's own key, if the proxy is down or
                refuses it. Otherwise the error is raised.

        Raises:
            ConfigurationError: if it is no such client, or *proxy* is True and there is no key.

        Example::

            client = sdk.openai(openai.OpenAI())
            with trace("checkout-8841"):
                client.chat.completions.create(model="gpt-4o", messages=messages)
        """
        return self._traced(client, "openai", proxy, fallback)

    def anthropic(self, client: T, *, proxy: bool | None = None, fallback: bool = False) -> T:
        """Return a client of the anthropic package like *client*, traced as :meth:`openai` says."""
        return self._traced(client, "anthropic", proxy, fallback)

    def litellm(self) -> Attachment:
        """
        Trace every completion and embedding of LiteLLM in this process, outside any trace as this client's.

        Returns:
            The attachment, whose ``detach()`` ends it; see :func:`whyops_trace.integrations.litellm.attach`.

        Raises:
            ConfigurationError: if ``litellm`` is not installed.

        Example::

            sdk.litellm()
            with trace("checkout-8841"):
                litellm.completion("openai/gpt-4o", messages)
        """
        # By name, since every module of frameworks imports this one.
        attachment: Attachment = import_module("whyops_trace.integrations.litellm").attach(self)
        return attachment

    def _traced(self, client: T, family: Family, proxy: bool | None, fallback: bool) -> T:
        from whyops_trace.providers._link import Proxy
        from whyops_trace.providers.clients import trace_client

        if proxy and not self.settings.server:
            raise ConfigurationError("proxy=True needs an api_key (WHYOPS_API_KEY) and tracing that is on.")
        through = None
        if self._server is not None and proxy is not False:
            delivery = next(each for each in self._deliveries if self._server in each.exporters)
            self._server.beside_proxy = True
            delivery.start(0.0)
            settings = self.settings
            through = Proxy(settings.proxy_url, settings.api_key, settings.proxy_wait, self._server, delivery)
        traced: T = trace_client(client, family, self.recorder, proxy=through, fallback=fallback)
        return traced

    def init_agent_sync(self) -> AgentInfo | None:
        """
        Register the agent with the server now; nobody has to, since delivery does it before the first event.

        Returns:
            The server's answer. None if there is no server or no ``agent_metadata``, or if the server did not take it:
            the reason is logged, and delivery tries again.
        """
        if self._server is None:
            return None
        _, error = attempt(self._server.registration.ensure)
        if error is not None and str(error):
            warn_once(f"init_agent: {error}", "The agent is not registered yet: %s", error)
        return self._server.registration.info

    async def init_agent(self) -> AgentInfo | None:
        """Register the agent as :meth:`init_agent_sync` does, without blocking the event loop."""
        from anyio.to_thread import run_sync

        return await run_sync(self.init_agent_sync, abandon_on_cancel=True)

    def stats(self) -> Ledger:
        """Return what became of the records of this client in this process, by destination."""
        return Ledger(
            {name: tally for delivery in self._deliveries for name, tally in delivery.ledger().items()}
        )

    def flush_sync(self, timeout: float = FLUSH_TIMEOUT) -> Ledger:
        """
        Wait until what this client recorded is delivered everywhere.

        Args:
            timeout: Seconds to wait at most, over all destinations.

        Returns:
            A :class:`~whyops_trace.types.Tally` by destination; ``pending`` is 0 where all was delivered in time.
        """
        self._flush(time.monotonic() + timeout)
        return self.stats()

    def _flush(self, deadline: float) -> None:
        if self._server is not None:
            self._server.turns.hasten()
        for delivery in self._deliveries:
            delivery.flush(deadline)

    async def flush(self, timeout: float = FLUSH_TIMEOUT) -> Ledger:  # noqa: ASYNC109 - the ledger is the answer, not an error
        """Wait, without blocking the event loop, until what this client recorded is delivered everywhere."""
        from anyio.to_thread import run_sync

        return await run_sync(self.flush_sync, timeout, abandon_on_cancel=True)

    def close_sync(self, timeout: float | None = None) -> Ledger:
        """
        Deliver what is recorded, end the worker threads, and close the journal and the exporters.

        Records that could not be delivered in time stay in the journal for the next process. Closing again does
        nothing; an event recorded afterwards is still recorded and delivered.

        Args:
            timeout: Seconds to wait at most; if left out ``exit_timeout``, or up to ``answer_timeout`` while a server
                is answering.
        """
        started = time.monotonic()
        if timeout is None:
            return self._close(started + self.exit_timeout, started + self.answer_timeout)
        return self._close(started + timeout)

    def _close(self, deadline: float, answered_by: float = 0.0, *, process_ends: bool = False) -> Ledger:
        for delivery in self._deliveries:
            delivery.conclude(process_ends=process_ends)
        self._flush(deadline)
        for delivery in self._deliveries:
            delivery.close(deadline, answered_by, process_ends=process_ends)
        if self._syncing is not None:
            self._syncing.close()
        with self.recorder.lock:
            # Else this is a signal handler, and the record that it interrupted goes on.
            if not self.recorder.is_writing:
                self._journal.close()
        clients.remove(self)
        ledger = self.stats()
        if ledger != self._closed_with:
            self._closed_with = ledger
            # With sampling by outcome it is no refusal of the server that left records out.
            refuses = self._server if self.settings.tail_sampling is None else None
            say_what_is_left(ledger, self.settings.home, {refuses.name: refuses.remedy} if refuses else {})
        return ledger

    def take_over(self) -> None:
        """Deliver what dead processes of this agent left in the journal; for the library itself."""
        for delivery in self._deliveries:
            delivery.take_over()

    @guarded("closing a client at exit")
    def exit(self, started: float) -> None:
        """Close as the process ends, which began at *started*: calls still open are noted as never ended."""
        self._close(started + self.exit_timeout, started + self.answer_timeout, process_ends=True)

    async def close(self, timeout: float | None = None) -> Ledger:  # noqa: ASYNC109 - as flush
        """Close as :meth:`close_sync` does, without blocking the event loop."""
        from anyio.to_thread import run_sync

        return await run_sync(self.close_sync, timeout, abandon_on_cancel=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close_sync()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


#: The clients of this process.
clients: Final = Clients(WhyOps)


def default_client() -> WhyOps:
    """Return the first client made in this process, or a local one made now."""
    return clients.default()


def first_client() -> WhyOps | None:
    """Return the first client made in this process, None if there is none."""
    return clients.first()


def forget_clients() -> None:
    """Close every client of this process, so that the next one is the default; for tests."""
    clients.forget()
