"""The functions of LiteLLM that ask a model, replaced by traced ones."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# The checks of types have no LiteLLM.

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import litellm

from whyops_trace import default
from whyops_trace._calls.call import C, Call
from whyops_trace._calls.functions import traced
from whyops_trace._calls.kinds import Embedding, Llm
from whyops_trace._guard import attempt
from whyops_trace._recording import recorders
from whyops_trace._recording.line import Content
from whyops_trace._recording.recorder import Recorder
from whyops_trace.client import WhyOps
from whyops_trace.context import Scope, find_scope, mark_wraps
from whyops_trace.integrations._attachment import Attachment, Patches

#: LiteLLM's names of providers, or the beginnings of them, and the ones that prices are known by.
_PROVIDERS: Final = {
    "azure": "azure",
    "bedrock": "aws",
    "fireworks_ai": "fireworks",
    "gemini": "google",
    "moonshot": "moonshotai",
    "together_ai": "together",
    "vertex_ai": "google",
    "xai": "x-ai",
}


class _Function(Llm):
    """A function of LiteLLM, whose calls are recorded while there is an attachment."""

    def _open(self, named: dict[str, Any], run: type[C], made_in: Scope | None = None) -> C | None:
        if not _attachments:
            return None
        around = made_in or find_scope()
        call = super()._open(named, run, made_in)
        if call is not None:
            mark_wraps(None if around is None else around.enclosing)
        return call

    @staticmethod
    def _note_request(call: Call, named: Mapping[str, Any]) -> None:
        Llm._note_request(call, named)
        if call.model_call is not None:
            call.model_call.by_client = True
            call.model_call.provider = attempt(_provider_of, named)[0] or ""

    def request(self, named: dict[str, Any], recorder: Recorder) -> tuple[bytes, bytes, Content]:
        """Return the event type, metadata members and content of a request, without parameters that are left out."""
        return super().request({name: value for name, value in named.items() if value is not None}, recorder)


class _Embedding(_Function, Embedding):
    """A function of LiteLLM that embeds texts."""


_KINDS: Final = {
    "acompletion": _Function,
    "aembedding": _Embedding,
    "completion": _Function,
    "embedding": _Embedding,
}


def _provider_of(named: Mapping[str, Any]) -> str:
    """Return the provider of a model, "" if the call and LiteLLM's list of models do not tell it."""
    model = str(named.get("model") or next(iter(named.get("args") or ()), ""))
    before, slash, _ = model.partition("/")
    name = named.get("custom_llm_provider") or (before if slash and before in litellm.provider_list else "")
    name = str(name or litellm.model_cost.get(model, {}).get("litellm_provider", ""))
    return next((known for start, known in _PROVIDERS.items() if name.startswith(start)), name)


def _recorder() -> Recorder | None:
    sdk = _attachments[-1].sdk if _attachments else None
    return default.default_recorder() if sdk is None else sdk.recorder


_attachments: list[Attachment] = []
_PATCHES: Final = Patches(litellm)


def attach(sdk: WhyOps | None) -> Attachment:
    """Trace every call of LiteLLM; see :func:`whyops_trace.integrations.litellm.attach`."""
    recorders.expect_layers()  # a framework may tell of the same turn
    for name in _KINDS:
        _PATCHES.put(name, partial(_traced, name))
    return Attachment(_attachments, sdk, _PATCHES)


def _traced(name: str, original: Any) -> Any:
    return traced(_KINDS[name](original, {"name": name}, _recorder), original)
