"""
Requests of traced clients, answered by the package itself.

The package's own ``request`` runs on a copy of the client whose HTTP client sends nothing, so that typed answers,
streams, raw responses and errors are made as always. What fetches credentials is left out.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from whyops_trace._calls.kinds import Embedding
from whyops_trace._replay.answers import stream_of
from whyops_trace._replay.recording import RecordedCall
from whyops_trace._replay.values import LostError, check_whole
from whyops_trace._shapes import dict_of
from whyops_trace.providers._traced import _Async, _Sync

if TYPE_CHECKING:
    from whyops_trace._replay.session import Session

#: pytest shows a failure where the program is, without the frames of this module.
__tracebackhide__ = True


class _Silent:
    """Stands in for an HTTP client, and answers instead of sending."""

    def __init__(self, real: Any, send: Any) -> None:
        self._real = real
        self.send = send

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class Reply:
    """
    One request of a client, and its reply.

    Attributes:
        is_live: True if it is sent.

    Args:
        session: The replay.
        client: The user's client.
        request: What records it.
        args: The arguments of the client's ``request``.
        kwargs: Its keyword arguments.
        is_async: True for an asynchronous client.
    """

    def __init__(
        self,
        session: Session,
        client: Any,
        request: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        is_async: bool,
    ) -> None:
        self._session, self._request, self._args, self._kwargs = session, request, args, kwargs
        options = kwargs["options"] if "options" in kwargs else args[1]
        if request.site is None:
            session.fail(
                f"{str(options.method).upper()} {options.url} is no call of a model, and was not recorded."
            )
        self.is_live = self._goes()
        self._is_async = is_async
        self._client, self._real = client, client._client
        if not self.is_live:
            request.is_replayed = True
            options.max_retries = 0  # what is recorded is how the last try ended
            self._client = copy.copy(client)
            self._client._client = _Silent(self._real, self._asend if self._is_async else self._send)
            self._client._prepare_request = _nothing_async if self._is_async else _nothing
            self._client._validate_headers = _nothing

    def send(self) -> Any:
        """Make the request with the package's own method."""
        # mypy takes no variable as the first argument of super().
        own: Any = super(_Async, self._client) if self._is_async else super(_Sync, self._client)
        return own.request(*self._args, **self._kwargs)

    def _goes(self) -> bool:
        """Tell whether the request is sent."""
        return self._session.is_live(self._request.site)

    def _find(self) -> RecordedCall | None:
        """Return the recorded call that answers the request; None if it is swapped or sent, and none was recorded."""
        return self._session.find(self._request.site, self._request.call)

    def _swap(self, found: RecordedCall | None) -> Callable[..., Any] | None:
        """Return the function that answers the request in its place, None if there is none."""
        return self._session.swap_for(self._request.site.name, found)

    def _send(self, sent: Any, **how: Any) -> Any:
        body = json.loads(sent.content or b"{}")
        found = self._find()
        if self._leaves(found):
            return self._real.send(sent, **how)
        if not body.get("stream"):  # it ends when it is read
            self._session.turns.wait(found)
        return self._response(found, body, sent)

    async def _asend(self, sent: Any, **how: Any) -> Any:
        body = json.loads(sent.content or b"{}")
        found = self._find()
        if self._leaves(found):
            return await self._real.send(sent, **how)
        await self._session.turns.wait_in_loop(found)
        return self._response(found, body, sent)

    def _leaves(self, found: RecordedCall | None) -> bool:
        """Tell whether a request is sent all the same: behind a branch, while recorded ones are still under way."""
        is_live = found is None and self._session.live_from > 0
        return is_live and self._swap(found) is None

    def _response(self, found: RecordedCall | None, body: dict[str, Any], sent: Any) -> Any:
        """Return the response of the HTTP library that the client uses."""
        session, site = self._session, self._request.site
        library = sys.modules[type(sent).__module__.partition(".")[0]]
        swap = self._swap(found)
        if swap is not None:
            return self._answered(library, swap(body), body, sent, None)
        if found is None:
            session.fail(f"Nothing answers a request to {site.name}.")
        session.results.check_ended(found)
        if found.refusal is not None:
            headers = {**dict_of(found.refusal.get("headers")), "x-should-retry": "false", **_ids(found)}
            said = found.refusal.get("body")
            given = {"text": said} if isinstance(said, str) else {"json": said}
            return library.Response(found.refusal.get("status"), headers=headers, request=sent, **given)
        if found.error is not None:
            return self._broken(library, found, found.error, sent, streams=bool(body.get("stream")))
        if isinstance(site, Embedding):
            session.fail(f"The vectors of {found} were not recorded; list {found.name!r} in live= or swap=.")
        whole = self._whole(found)
        return self._answered(library, whole, body, sent, found)

    def _broken(
        self, library: Any, found: RecordedCall, told: dict[str, Any], sent: Any, *, streams: bool
    ) -> Any:
        """Raise as the HTTP library does when no answer comes, or return a stream that breaks off."""
        is_late, message = "Timeout" in str(told.get("type")), str(told.get("message"))
        if not streams:
            raise (library.ConnectTimeout if is_late else library.ConnectError)(message, request=sent)

        def pieces() -> Iterator[bytes]:
            yield b""
            raise (library.ReadTimeout if is_late else library.ReadError)(message, request=sent)

        content: Any = _later(pieces()) if self._is_async else pieces()
        headers = {"content-type": "text/event-stream", **_ids(found)}
        return library.Response(200, headers=headers, content=content, request=sent)

    def _whole(self, found: RecordedCall) -> dict[str, Any]:
        session = self._session
        if found.raw is None:
            session.fail(
                f"The answer of {found} was not recorded as it came; record it again with this version."
            )
        session.results.check_kept(found)
        try:
            check_whole(found.raw, "answer")
        except LostError as error:
            session.fail(f"{found} cannot be replayed: {error}.")
        return dict_of(found.raw)

    def _answered(
        self, library: Any, whole: dict[str, Any], body: dict[str, Any], sent: Any, found: RecordedCall | None
    ) -> Any:
        ids = {} if found is None else _ids(found)
        if not body.get("stream"):
            return library.Response(200, headers=ids, json=whole, request=sent)
        pieces = self._pieces(whole, body, found)
        content: Any = _later(pieces) if self._is_async else pieces
        headers = {"content-type": "text/event-stream", **ids}
        return library.Response(200, headers=headers, content=content, request=sent)

    def _pieces(
        self, whole: dict[str, Any], body: dict[str, Any], found: RecordedCall | None
    ) -> Iterator[bytes]:
        is_left = found is not None and found.outcome == "cancelled"
        pieces = list(stream_of(self._request.site.name, whole, body))
        yield from pieces[: -(2 if is_left else 0) or None]
        if is_left:
            self._session.fail(
                f"The stream of {found} was left here when it was recorded, and is read further now."
            )


def _ids(found: RecordedCall) -> dict[str, str]:
    return {"x-request-id": found.request_id, "request-id": found.request_id} if found.request_id else {}


async def _later(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _nothing(*_: Any) -> None:
    """Do nothing."""


async def _nothing_async(*_: Any) -> None:
    """Do nothing."""
