"""The tracing of a client of the openai or the anthropic package."""

from __future__ import annotations

from functools import partial
from typing import Any, Final, Literal

from whyops_trace._guard import warn_once
from whyops_trace._recording import recorders
from whyops_trace._recording.recorder import ROOM, Recorder
from whyops_trace.exceptions import ConfigurationError
from whyops_trace.providers._endpoints import Endpoints, provider_of, variant
from whyops_trace.providers._link import Link, Proxy
from whyops_trace.providers._request import AGENT_NAME, is_header
from whyops_trace.providers._traced import bare, connect, duplicate, is_client, makes_itself, replaced_method

Family = Literal["openai", "anthropic"]

_EXAMPLES: Final = {"openai": "openai.OpenAI()", "anthropic": "anthropic.Anthropic()"}


def trace_client(
    client: Any, family: Family, recorder: Recorder, *, proxy: Proxy | None = None, fallback: bool = False
) -> Any:
    """
    Return a copy of a client whose model calls are recorded as turns.

    Args:
        client: Any client of the package. It is not changed.
        family: The package.
        recorder: Recorder of its turns.
        proxy: The WhyOps proxy for its requests; None sends them to the provider itself.
        fallback: True to send them to the provider if the proxy fails.

    Raises:
        ConfigurationError: if it is not a client of that package.
    """
    _check(client, family)
    for other in (recorder, *recorders.alive):  # a request may be made in the trace of any
        other.traces_clients = True
    original = bare(client)
    if name := replaced_method(original):
        warn_once(
            f"replaced: {name}",
            "The method %s of a client was replaced, as by another library that traces it; its traced copy has the "
            "package's own. Give the client to %s() first, and what it returns to the other library.",
            name,
            family,
        )
    endpoints = partial(Endpoints, family, provider_of(original), lambda: recorder)
    direct = connect(duplicate(original), Link(recorder, endpoints(proxied=False)))
    if proxy is None or not _can_be_proxied(original, family, recorder):
        return direct
    recorder.stride = ROOM
    url = f"{proxy.url}/v1" if family == "openai" else proxy.url
    copied = original.copy(api_key=proxy.key, base_url=url, default_headers={AGENT_NAME: recorder.agent_name})
    if getattr(copied, "auth_token", None) is not None:
        copied.auth_token = None  # it would be sent in place of the key
    link = Link(recorder, endpoints(proxied=True), proxy=proxy, direct=direct, fallback=fallback)
    return connect(copied, link)


def _packages(client: Any) -> set[str]:
    """Return the packages that the class of a client and its bases are from."""
    return {base.__module__.partition(".")[0] for base in type(client).__mro__}


def _check(client: Any, family: Family) -> None:
    other: Family = "anthropic" if family == "openai" else "openai"
    packages = _packages(client)
    if not is_client(client) or (other in packages and family not in packages):
        hint = f" Use {other}(...) for it." if other in packages else ""
        raise ConfigurationError(
            f"{family}() was given {client!r:.80}; it takes a client of the {family} package, such as "
            f"{_EXAMPLES[family]}.{hint}"
        )


def _can_be_proxied(client: Any, family: Family, recorder: Recorder) -> bool:
    """Return True if the proxy serves a client; if not, log a warning with the reason."""
    reason = ""
    if variant(client) or family not in _packages(client):
        reason = f"it serves no {type(client).__name__}"
    elif getattr(client, "_provider_runtime", None) is not None:
        reason = "its provider signs requests in its own way"
    elif makes_itself(type(client)):
        reason = f"{type(client).__name__} has a constructor of its own, and no copy() that knows it"
    elif not is_header(recorder.agent_name):
        reason = f"the agent's name {recorder.agent_name!r} is no HTTP header; use ASCII characters"
    if reason:
        warn_once(
            f"not proxied: {reason}",
            "A client does not go through the WhyOps proxy (%s); its turns are reported from here.",
            reason,
        )
    return not reason
