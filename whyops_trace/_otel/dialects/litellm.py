"""LiteLLM, besides GenAI's attributes: a span for the call, and one with what the provider was sent and answered."""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from whyops_trace._models.answers import read_response
from whyops_trace._models.frameworks import id_of
from whyops_trace._otel.attributes import Attributes, literal
from whyops_trace._otel.messages import read_messages
from whyops_trace._otel.reading import Reading
from whyops_trace._otel.span import Span
from whyops_trace._shapes import dict_of, list_of, text_of

#: Members of an answer, which the span of the provider's call has behind the provider's name.
_ANSWER: Final = ("choices", "output", "content", "usage", "model", "id", "stop_reason")


def is_mine(span: Span, roots: Set[str]) -> bool:
    """Return True for its spans."""
    return span.scope == "litellm"


def read(span: Span, attributes: Attributes, reading: Reading) -> None:
    """Fill in what the span of the provider's call tells; the other one says all with GenAI's attributes."""
    provider = _provider(span)
    if provider:
        raw = {name: literal(value) for name, value in attributes.named(f"llm.{provider}.").items()}
        reading.fill(kind="llm", model=text_of(raw.get("model")))
        reading.is_copy = True
        reading.ask(
            read_messages(raw.get("messages") or raw.get("input") or []), tools=list_of(raw.get("tools"))
        )
        told = {name: raw[name] for name in _ANSWER if raw.get(name) is not None}
        if isinstance(told.get("choices"), list) or isinstance(told.get("output"), list):
            reading.reply(read_response(told))
        reading.answer.id = reading.answer.id or id_of(told)
        reading.answer.provider = reading.answer.provider or provider
        return
    attributes.get("hidden_params", "litellm.cache_hit", "llm.is_streaming")
    usage = dict_of(literal(attributes.get("metadata.usage_object")))
    if "gen_ai.operation.name" in span.attributes or usage:
        reading.fill(kind="llm")


def _provider(span: Span) -> str:
    """Return the provider in the names of attributes such as ``llm.openai.choices``, "" if there is none."""
    for name in span.attributes:
        first, _, rest = name.partition(".")
        provider, _, member = rest.partition(".")
        if first == "llm" and member in ("messages", "choices", "id", "usage", "model"):
            return provider
    return ""
