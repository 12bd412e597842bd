"""
Requests of clients that are not traced, in a turn of which the callbacks of a framework tell.

If a framework is attached and its client is not traced, the recording has the text of each answer, the calls of
tools and the tokens. Of these an answer of the provider's is made, which the package and the framework read as always.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from whyops_trace._replay.clients import Reply
from whyops_trace._replay.composing import ANSWERS, composed
from whyops_trace._replay.recording import RecordedCall
from whyops_trace._replay.values import LostError, check_whole
from whyops_trace._shapes import dict_of
from whyops_trace.providers._traced import _Async, _Sync

if TYPE_CHECKING:
    from whyops_trace._replay.session import Session

#: pytest shows a failure where the program is, without the frames of this module.
__tracebackhide__ = True

#: Modules with the classes of all clients of a package.
_MODULES: Final = ("openai._base_client", "anthropic._base_client")
#: Ends of the paths of requests, by the name of their endpoint.
_ENDS: Final = {"/chat/completions": "chat.completions", "/responses": "responses", "/messages": "messages"}


class ToldReply(Reply):
    """
    The reply to a request in a turn of which a framework tells.

    Args:
        session: The replay.
        client: The user's client.
        asked: The turn.
        found: The recorded turn that answers it, None if it is swapped.
        own: The package's own ``request``.
        args: The arguments of that.
        kwargs: Its keyword arguments.
    """

    def __init__(
        self,
        session: Session,
        client: Any,
        asked: RecordedCall,
        found: RecordedCall | None,
        own: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self._asked, self._found, self._own = asked, found, own
        request = SimpleNamespace(site=SimpleNamespace(name=endpoint_of(args, kwargs)), call=None)
        super().__init__(session, client, request, args, kwargs, is_async="Async" in own.__qualname__)

    def send(self) -> Any:
        """Make the request with the package's own method."""
        return self._own(self._client, *self._args, **self._kwargs)

    def _goes(self) -> bool:
        return False

    def _find(self) -> RecordedCall | None:
        return self._found

    def _swap(self, found: RecordedCall | None) -> Callable[..., Any] | None:
        return self._session.swap_for(self._asked.name, found)

    def _whole(self, found: RecordedCall) -> dict[str, Any]:
        if found.raw is not None:  # of an object, in which what the provider left out is null
            whole: dict[str, Any] = _without_nulls(super()._whole(found))
            return whole
        self._session.results.check_kept(found)
        try:
            check_whole(dict_of(found.answer), "answer")
        except LostError as error:
            self._session.fail(f"{found} cannot be replayed: {error}.")
        note = f"The answers of {found.name} are made of what its framework told: texts, calls of tools and tokens."
        if note not in self._session.notes:
            self._session.notes.append(note)
        return composed(self._request.site.name, found)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return value


def endpoint_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return the name of the endpoint of a request, "" if it is none that answers with a text."""
    options = kwargs["options"] if "options" in kwargs else args[1]
    path = str(options.url).partition("?")[0]
    return next((name for end, name in _ENDS.items() if path.endswith(end) and name in ANSWERS), "")


def answer_told(session: Session) -> contextlib.ExitStack:
    """Answer the requests of clients that are not traced, in turns of which frameworks tell. Return what ends it."""
    undo = contextlib.ExitStack()
    for module in map(sys.modules.get, _MODULES):
        for face in ("SyncAPIClient", "AsyncAPIClient"):
            if (owner := getattr(module, face, None)) is not None:
                own = owner.request
                owner.request = (
                    _answering(session, own) if face == "SyncAPIClient" else _awaiting(session, own)
                )
                undo.callback(setattr, owner, "request", own)
    return undo


def _answering(session: Session, own: Callable[..., Any]) -> Callable[..., Any]:
    def request(self: Any, *args: Any, **kwargs: Any) -> Any:
        asked = None if isinstance(self, _Sync) or not endpoint_of(args, kwargs) else session.told()
        if asked is None:
            return own(self, *args, **kwargs)
        with session.lifted(asked.name):
            is_live, found = session.find_told(asked)
            if is_live:
                return own(self, *args, **kwargs)
            return ToldReply(session, self, asked, found, own, args, kwargs).send()

    return request


def _awaiting(session: Session, own: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    async def request(self: Any, *args: Any, **kwargs: Any) -> Any:
        asked = None if isinstance(self, _Async) or not endpoint_of(args, kwargs) else session.told()
        if asked is None:
            return await own(self, *args, **kwargs)
        with session.lifted(asked.name):
            is_live, found = session.find_told(asked)
            if is_live:
                return await own(self, *args, **kwargs)
            return await ToldReply(session, self, asked, found, own, args, kwargs).send()

    return request
