"""Endpoints of a client: the requests that are model calls, and the provider that serves them."""

from __future__ import annotations

import re
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
#: The same for calls that the WhyOps proxy does not serve, which go to the provider itself.
_DIRECT: Final[tuple[tuple[str, str, type[CallSite]], ...]] = (
    ("/responses/compact", "responses.compact", Llm),
    # After that of chat completions, whose path ends like it.
    ("/completions", "completions", Llm),
)
#: Provider at a host, under the name that the package genai-prices has for it.
_HOSTS: Final = {
    "api.anthropic.com": "anthropic",
    "api.arcee.ai": "arcee",
    "api.avian.io": "avian",
    "api.cerebras.ai": "cerebras",
    "api.cohere.ai": "cohere",
    "api.cohere.com": "cohere",
    "api.cursor.com": "cursor",
    "api.deepseek.com": "deepseek",
    "api.doubleword.ai": "doubleword",
    "api.elevenlabs.io": "elevenlabs",
    "api.fireworks.ai": "fireworks",
    "api.githubcopilot.com": "github-copilot",
    "api.groq.com": "groq",
    "api.meta.ai": "meta",
    "api.minimax.com": "minimax",
    "api.minimax.io": "minimax",
    "api.minimaxi.com": "minimax",
    "api.mistral.ai": "mistral",
    "api.moonshot.ai": "moonshotai",
    "api.moonshot.cn": "moonshotai",
    "api.novita.ai": "novita",
    "api.openai.com": "openai",
    "api.openrouter.ai": "openrouter",
    "api.perplexity.ai": "perplexity",
    "api.quicksilverpro.io": "quicksilverpro",
    "api.together.ai": "together",
    "api.together.xyz": "together",
    "api.typesafe.ai": "typesafe",
    "api.voyageai.com": "voyageai",
    "api.x.ai": "x-ai",
    "api.z.ai": "zai",
    "inference.baseten.co": "baseten",
    "oai.endpoints.kepler.ai.cloud.ovh.net": "ovhcloud",
    "open.bigmodel.cn": "zhipuai",
    "openrouter.ai": "openrouter",
}
#: Provider at an address, host and path, where the host is one of many or serves several.
_ADDRESSES: Final = (
    (re.compile(r"bedrock-runtime\.[a-z0-9-]+\.amazonaws\.com/"), "aws"),
    (
        re.compile(
            r"([^/]+\.)?(openai\.azure\.com|azure-api\.net|(cognitiveservices|services\.ai)\.azure\.com)/"
        ),
        "azure",
    ),
    (re.compile(r"api\.cloudflare\.com/client/v4/accounts/[^/]+/ai/"), "cloudflare"),
    (
        re.compile(
            r"[^/]+\.(cloud\.databricks\.com|azuredatabricks\.net|gcp\.databricks\.com)/(serving-endpoints|ai-gateway)/"
        ),
        "databricks",
    ),
    (re.compile(r"api\.(us|(eu|in|sg)\.residency)\.elevenlabs\.io/"), "elevenlabs"),
    (re.compile(r"([^/]+\.)?googleapis\.com/"), "google"),
    (re.compile(r"router\.huggingface\.co/(?!v\d+/)([^/]+)/"), r"huggingface_\1"),
    (re.compile(r"[^/]+\.modal\.(run|direct)/"), "modal"),
)
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
        self._recorder = recorder
        self._sites: dict[str, CallSite] = {}
        for path, name, kind in _ENDPOINTS if proxied else (*_ENDPOINTS, *_DIRECT):
            if (name == "messages") is (family == "anthropic"):
                site = kind(_ask, {"name": name, "provider": provider}, recorder)
                site.holds = proxied
                self._sites[path] = site

    def of(self, client: Any) -> Endpoints:
        """Return those of a client with another address, whose calls nobody else reports."""
        return Endpoints(self.family, provider_of(client), self._recorder, proxied=False)

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


def provider_of(client: Any) -> str:
    """Return the name of the provider that serves the models of a client: its host if nobody knows that address."""
    return variant(client) or provider_at(str(client.base_url))


def provider_at(address: str) -> str:
    """Return the name of the provider whose models are served at a URL: its host if nobody knows that address."""
    url = urlsplit(address)
    host = url.hostname or "unknown"
    for pattern, provider in _ADDRESSES:
        if match := pattern.match(f"{host}{url.path.rstrip('/')}/"):
            return match.expand(provider)
    return _HOSTS.get(host, host)


def _ask(**body: Any) -> None:
    """Stand for a request as a function: its body is the arguments."""
