"""Functions that need no client: they use that of the open trace, else the default client, the first one made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from whyops_trace._checks import check_score
from whyops_trace._guard import attempt, warn_once
from whyops_trace._limits import limits_of
from whyops_trace._recording.recorder import Recorder
from whyops_trace.client import FLUSH_TIMEOUT, default_client, first_client
from whyops_trace.context import find_scope
from whyops_trace.headers import Headers, continued, resumed
from whyops_trace.open_calls import OpenCall, StepKind
from whyops_trace.tracing import Step, Trace, trace_on
from whyops_trace.types import ExceptionLike, Ledger, OnLoop


def default_recorder() -> Recorder | None:
    """Return the default client's recorder; None, said once, if the environment asks for what cannot be obeyed."""
    client, error = attempt(default_client)
    if client is None:
        warn_once("no default client", "Nothing is traced: %s", error)
        return None
    return client.recorder


def trace(
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
    Return a trace of the client whose trace is open, else of the default client; see :meth:`WhyOps.trace`.

    Example::

        with trace("checkout-8841"):
            charge_card(4999, currency="usd")
    """
    scope = find_scope()
    recorder = default_client().recorder if scope is None else scope.trace.recorder
    limits = limits_of(max_tokens, max_cost, max_steps, max_seconds, on_loop)
    return trace_on(recorder, trace_id, external_user_id, metadata, tags, not_errors, limits=limits)


def continue_from(
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
    """
    Return the trace that headers tell of, to go on with where their sender stood when it called :func:`inject`.

    Headers of programs with OpenTelemetry, or with an ``X-Trace-ID``, give a trace of that id. Without any of these it
    is a trace as :func:`trace` returns it without an id.

    Headers need not be trusted: they are bounded, name no user, and do not decide whether a trace is recorded. Who
    sends them may write to the trace of the id that they tell.

    Args:
        headers: The headers of a request, message or job: a mapping, such as a dict, ``httpx.Headers`` or the
            ``environ`` of WSGI, or pairs of texts or bytes.
        link: False to ignore them, as ``WHYOPS_LINK=off`` does for the whole program.
        external_user_id: As :meth:`WhyOps.trace` has it, and so are the others.
        metadata: About the trace as a whole.
        tags: Labels of the trace.
        not_errors: Exceptions with which the block may end without a failure.
        max_tokens: Tokens that models may use while the block is open; the other limits are those of
            :meth:`WhyOps.trace` as well. They count what is recorded in this block.
        max_cost: US dollars that models may cost.
        max_steps: Number of calls and steps that may begin.
        max_seconds: Seconds after which none may begin.
        on_loop: What to do about a loop.

    Example::

        with continue_from(request.headers):
            charge_card(4999, currency="usd")

    Raises:
        InvalidEventError: if the user, the metadata or the tags are of the wrong type or size.
        ConfigurationError: if *not_errors* has something else than exceptions and names, a limit is none, or the extra
            for *max_cost* is not installed.
    """
    scope = find_scope()
    recorder = default_client().recorder if scope is None else scope.trace.recorder
    limits = limits_of(max_tokens, max_cost, max_steps, max_seconds, on_loop)
    return continued(recorder, headers, link, external_user_id, metadata, tags, not_errors, limits)


def resume(
    token: str,
    *,
    external_user_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    tags: Iterable[str] = (),
    not_errors: Iterable[ExceptionLike] = (),
) -> Trace:
    """
    Return the trace that a token of :func:`suspend` tells of, to go on with it where that was called.

    Its calls are inside the step or call that was open there, under the same user. A token that cannot be read gives a
    new trace, and a warning; one that was signed with another API key goes on at the end of its trace.

    Args:
        token: The token; an empty one gives a trace as :func:`trace` returns it without an id.
        external_user_id: As :meth:`WhyOps.trace` has it, and so are the others.
        metadata: About the trace as a whole.
        tags: Labels of the trace.
        not_errors: Exceptions with which the block may end without a failure.

    Example::

        with resume(database.token(order)):
            refund(order)

    Raises:
        InvalidEventError: if the user, the metadata or the tags are of the wrong type or size.
        ConfigurationError: if *not_errors* has something else than exceptions and names.
    """
    scope = find_scope()
    recorder = default_client().recorder if scope is None else scope.trace.recorder
    return resumed(recorder, token, external_user_id, metadata, tags, not_errors)


def step(
    name: str,
    *,
    kind: StepKind = "step",
    input: Any = None,
    metadata: Mapping[str, Any] | None = None,
    not_errors: Iterable[ExceptionLike] = (),
) -> Step:
    """
    Return a named part of a workflow, for ``with`` and ``async with``: what runs inside is nested in it.

    Args:
        name: Name of the part, or of the agent; 1 to 255 characters.
        kind: ``"agent"`` for the run of an agent, ``"handoff"`` for the passing of the work to another one.
        input: Its input; any value, encoded when the block is entered.
        metadata: More about it.
        not_errors: Exceptions with which the block may end without a failure; see :func:`traced_tool`.

    Example::

        with step("plan", input=question) as plan:
            plan.set_output(choose(question))

    Raises:
        InvalidEventError: if the name or the metadata are of the wrong type or size.
        ConfigurationError: if *not_errors* has something else than exceptions and names.
    """
    return Step(
        name, kind=kind, input=input, metadata=metadata, not_errors=not_errors, recorder=default_recorder
    )


def current_trace() -> Trace | None:
    """Return the trace that is open here, or None."""
    scope = find_scope()
    return None if scope is None else Trace(scope.trace)


def score(
    name: str,
    value: bool | float | str | None = None,
    *,
    comment: str | None = None,
    step: int | Step | OpenCall | None = None,
) -> None:
    """
    Record how good the trace is that is open here, or one step of it; see :meth:`whyops_trace.Trace.score`.

    Where no trace is open nothing is recorded, and a warning says so once: ``trace("its id").score(...)`` names one.

    Raises:
        InvalidEventError: if an argument is of the wrong type or size.
    """
    scope = find_scope()
    if scope is None:
        check_score(name, value, comment)
        warn_once(
            "score outside of traces",
            'score(%r) has no trace: none is open here. trace("its id").score(...) names one.',
            name,
        )
    else:
        Trace(scope.trace).score(name, value, comment=comment, step=step)


def flush_sync(timeout: float = FLUSH_TIMEOUT) -> Ledger:
    """Wait until what the default client recorded is delivered; see :meth:`WhyOps.flush_sync`."""
    client = first_client()
    return Ledger() if client is None else client.flush_sync(timeout)


async def flush(timeout: float = FLUSH_TIMEOUT) -> Ledger:  # noqa: ASYNC109 - as WhyOps.flush
    """Wait, without blocking the event loop, until what the default client recorded is delivered."""
    client = first_client()
    return Ledger() if client is None else await client.flush(timeout)
