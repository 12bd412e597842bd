"""Which requests of a client are calls of a model, and who serves them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from whyops_trace._calls.kinds import Embedding, Llm
from whyops_trace._calls.site import CallSite
from whyops_trace._guard import guarded
from whyops_trace._recording.recorder import Recorder

#: The path a request ends in, what its calls are named, and what kind of call they are.
_ENDPOINTS: Final[tuple[tuple[str, str, type[CallSite]], ...]] = (
    ("/chat/completions", "chat.completions", Llm),
    ("/responses", "responses", Llm),
    ("/embeddings", "embeddings", Embedding),
    ("/v1/messages", "messages", Llm),
)
#: Who serves the models at an address, where that is not whose client it is.
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
#: Words in the names of classes of clients of other services with a provider's models.
_VARIANTS: Final = {
    "Azure": "azure",
    "Bedrock": "aws",
    "Foundry": "azure",
    "Mantle": "aws",
    "Vertex": "google",
}


class Endpoints:
    """
    The call sites of one client: what its calls of models are recorded as.

    Args:
        family: Whose client it is: "openai" or "anthropic".
        provider: Who serves it.
        recorder: Returns what records a call outside any trace.
        proxied: Whether the WhyOps proxy reports the calls.
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
        """Return the call site of a request; None if it is none of a model."""
        if str(options.method).lower() != "post":
            return None
        path = str(options.url).partition("?")[0]
        return next((site for end, site in self._sites.items() if path.endswith(end)), None)


def is_served_by_proxy(options: Any) -> bool:
    """Tell whether the proxy takes a request that is none of a model: the list of models."""
    return str(options.method).lower() == "get" and str(options.url).rstrip("/").endswith("/models")


def variant(client: Any) -> str:
    """Return which other service with a provider's models a client is for, "" if it is for the provider itself."""
    names = [base.__name__ for base in type(client).__mro__]
    return next((service for word, service in _VARIANTS.items() if any(word in name for name in names)), "")


def provider_of(client: Any, family: str) -> str:
    """Return who serves the models of a client."""
    host = urlsplit(str(client.base_url)).hostname or ""
    return variant(client) or _HOSTS.get(host, family)


def _ask(**body: Any) -> None:
    """Stand for a request: what it has, a function that makes it would have as arguments."""
