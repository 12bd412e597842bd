"""Endpoints of a client: the requests that are model calls, and the provider that serves them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from whyops_trace._calls.kinds import Embedding, Llm
from whyops_trace._calls.site import CallSite
from whyops_trace._guard import guarded
from whyops_trace._recording.recorder import Recorder

#: End of a request's path, the name of its calls, and their kind.
_ENDPOINTS: Final[tuple[tuple[str, str, type[CallSite]], ...]] = (
    ("/chat/completions", "chat.completions", Llm),
    ("/responses", "responses", Llm),
    ("/embeddings", "embeddings", Embedding),
    ("/v1/messages", "messages", Llm),
)
#: Provider at an address, where it differs from the client's family.
_HOSTS: Final = {
    "api.deepseek.com": "deepseek",
    "api.fireworks.ai": "fireworks",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral",
    "api.together.xyz": "together",
    "api.x.ai": "x-ai",
    "generativelanguage.googleapis.com": "google",
    "openrouter.ai": "openrouter",
}
#: Words in the names of client classes for other services that serve a provider's models.
_VARIANTS: Final = {
    "Azure": "azure",
    "Bedrock": "aws",
    "Foundry": "azure",
    "Mantle": "aws",
    "Vertex": "google",
}


class Endpoints:
    """
    The call sites of one client, as which its model calls are recorded.

    Args:
        family: Package of the client: "openai" or "anthropic".
        provider: Name of the provider that serves it.
        recorder: Function that returns the recorder for a call outside any trace.
        proxied: True if the WhyOps proxy reports the calls.
    """

    def __init__(
        self, family: str, provider: str, recorder: Callable[[], Recorder | None], *, proxied: bool
    ) -> None:
        self.family = family
        self._sites: dict[str, CallSite] = {}
        for path, name, kind in _ENDPOINTS:
            if (name == "messages") is (family == "anthropic"):
                site = kind(_ask, {"name": name, "provider": provider}, recorder)
                site.holds = proxied
                self._sites[path] = site

    @guarded("looking at a request")
    def site(self, options: Any) -> CallSite | None:
        """Return the call site of a request, None if it is not a model call."""
        if str(options.method).lower() != "post":
            return None
        path = str(options.url).partition("?")[0]
        return next((site for end, site in self._sites.items() if path.endswith(end)), None)


def is_served_by_proxy(options: Any) -> bool:
    """Return True if the proxy serves a request that is not a model call: the list of models."""
    return str(options.method).lower() == "get" and str(options.url).rstrip("/").endswith("/models")


def variant(client: Any) -> str:
    """Return the other service that a client with a provider's models is for, "" if it is for the provider itself."""
    names = [base.__name__ for base in type(client).__mro__]
    return next((service for word, service in _VARIANTS.items() if any(word in name for name in names)), "")


def provider_of(client: Any, family: str) -> str:
    """Return the name of the provider that serves the models of a client."""
    host = urlsplit(str(client.base_url)).hostname or ""
    return variant(client) or _HOSTS.get(host, family)


def _ask(**body: Any) -> None:
    """Stand for a request as a function: its body is the arguments."""
