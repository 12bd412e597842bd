"""Checks between this machine and a WhyOps server, made with a few read-only requests."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from whyops_trace._home import SERVER_FILE
from whyops_trace._reading.excerpt import clean, duration, get, shorten
from whyops_trace._values import encoding
from whyops_trace.commands.diagnosis import CLOCK_TOLERANCE, Finding
from whyops_trace.exporters._http import Answer, Http, NoAnswerError
from whyops_trace.exporters.whyops.agent import check_metadata
from whyops_trace.exporters.whyops.registration import keep_more
from whyops_trace.exporters.whyops.retry import misconfiguration
from whyops_trace.exporters.whyops.state import ServerState
from whyops_trace.settings import Settings, shown_url

#: Seconds to wait for each part of an answer.
_TIMEOUT: Final = 3.0
#: The agent that is registered on request: always the same, so that it takes only one place of an account.
_AGENT: Final = "whyops-trace-doctor"
_METADATA: Final = check_metadata({"systemPrompt": "Registered by whyops-trace doctor.", "tools": []})
_KEY_BEGINS: Final = ("whyops_", "YOPS-")


def key(settings: Settings) -> Finding:
    """Check the form of the key, which is never shown."""
    if not settings.api_key:
        where = "stay on this machine" if not settings.otlp else "go to no WhyOps server"
        return Finding("key", "ok", f"There is no key: traces {where}.")
    if not settings.api_key.startswith(_KEY_BEGINS):
        message = "WHYOPS_API_KEY is set, but does not begin with whyops_ or YOPS-, as the keys of WhyOps do."
        return Finding("key", "warning", message, "Copy the key again, without quotes or spaces.")
    return Finding("key", "ok", "WHYOPS_API_KEY is set and has the form of a key.")


def server(settings: Settings, *, init: bool) -> Iterator[Finding]:
    """
    Check that the server and the proxy answer and accept the key.

    Args:
        settings: Settings with their addresses and the key.
        init: True to register an agent, which stays on the server.
    """
    if not settings.server:
        return
    yield from _sampling(settings)
    with closing(Http(settings.analyse_url, settings.api_key, read_timeout=_TIMEOUT)) as http:
        started = time.perf_counter()
        answer = _get(http, "/health")
        if isinstance(answer, NoAnswerError):
            advice = (
                "Check WHYOPS_ANALYSE_URL, the network and HTTPS_PROXY; events wait in the journal meanwhile."
            )
            yield Finding("server", "problem", f"{clean(str(answer))}.", advice)
        else:
            took = (time.perf_counter() - started) * 1000
            yield from _health(settings, answer, took)
            yield from _clock(answer)
            yield _accepted(http)
            if init:
                yield _registration(http)
    yield _proxy(settings)


def _sampling(settings: Settings) -> Iterator[Finding]:
    """Tell of events that the server did not keep, as the programs of this home counted them."""
    key = settings.stream(())
    with closing(ServerState(settings.home / SERVER_FILE)) as state:
        events, since = state.sampled_out(key)
        agent = state.agent(key)
    if events:
        message = (
            f"The server has not kept {events:,} events of the agent {settings.agent_name!r} since "
            f"{time.strftime('%Y-%m-%d', time.gmtime(since))}."
        )
        yield Finding("sampling", "warning", message, keep_more(settings.analyse_url, agent.id))


def _get(http: Http, path: str, params: Mapping[str, str | int] | None = None) -> Answer | NoAnswerError:
    try:
        return http.get(path, params or {})
    except NoAnswerError as error:
        return error


def _body(answer: Answer) -> object:
    try:
        return msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _health(settings: Settings, answer: Answer, took: float) -> Iterator[Finding]:
    status = get(_body(answer), "status")
    if answer.status != 200 or not isinstance(status, str):
        yield Finding("server", "problem", f"{shown_url(settings.analyse_url)}: {misconfiguration(answer)}")
    elif status not in ("healthy", "ok"):
        message = f"{shown_url(settings.analyse_url)} says that it is {clean(status)}."
        yield Finding("server", "warning", message, "Events wait in the journal until it takes them.")
    else:
        yield Finding(
            "server", "ok", f"{shown_url(settings.analyse_url)} is {status}; it answered in {duration(took)}."
        )


def _clock(answer: Answer) -> Iterator[Finding]:
    """Compare the clock with the date of an answer, which is exact to a second."""
    try:
        ahead = time.time() - parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except (ValueError, OverflowError):
        return
    if abs(ahead) <= CLOCK_TOLERANCE:
        yield Finding("clock", "ok", "The clock agrees with the server's.")
    else:
        message = f"The clock is {duration(abs(ahead) * 1000)} {'ahead of' if ahead > 0 else 'behind'} the server's."
        yield Finding("clock", "warning", message, "Let the clock be set by the network (NTP).")


def _accepted(http: Http) -> Finding:
    """Request the events of a trace that does not exist. Only an accepted key gets an answer."""
    answer = _get(http, "/events", {"traceId": _AGENT, "limit": 1})
    if isinstance(answer, NoAnswerError):
        return Finding("account", "warning", f"{clean(str(answer))}.", "Try again.")
    if answer.status == 200 and isinstance(_body(answer), dict):
        return Finding("account", "ok", "The server takes the key.")
    if answer.status == 429 or answer.status >= 500:
        message = f"The server answers {answer.status} at present."
        return Finding("account", "warning", message, "Try again later.")
    return Finding("account", "problem", f"{shown_url(http.base_url)}: {misconfiguration(answer)}")


def _registration(http: Http) -> Finding:
    body = encoding.encode({"agentName": _AGENT, "metadata": _METADATA})
    try:
        answer = http.post("/entities/init", body)
    except NoAnswerError as error:
        return Finding("agent", "problem", f"{clean(str(error))}.", "Try again.")
    if answer.status in (200, 201) and get(_body(answer), "agentId"):
        return Finding("agent", "ok", f"The server registered the agent {_AGENT}.")
    reason = clean(str(get(_body(answer), "error") or answer.status))
    message = f"The server does not register an agent: {shorten(reason, 200)}."
    return Finding("agent", "problem", message, "Events of an agent it knows are still taken.")


def _proxy(settings: Settings) -> Finding:
    """Check that the proxy answers a request in any way."""
    with closing(Http(settings.proxy_url, settings.api_key, read_timeout=_TIMEOUT)) as http:
        answer = _get(http, "/health")
    if isinstance(answer, NoAnswerError):
        advice = "Only clients made by WhyOps.openai() and anthropic() need it; fallback=True lets them go without."
        return Finding("proxy", "warning", f"{clean(str(answer))}.", advice)
    return Finding("proxy", "ok", f"{shown_url(settings.proxy_url)} can be reached.")
