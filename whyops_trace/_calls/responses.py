"""
Responses that are watched while the program reads them, so that a traced call ends when its response does.

A response is watched by making it an instance of a subclass of its own class: every way to read it (by events, lines
or bytes, in one piece, with a provider's helper) goes through ``iter_bytes`` or ``aiter_bytes``, every end through
``close``, ``aclose`` or the garbage collector. Nothing is read ahead or held back, and the copy of the body is parsed
when the call ends.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, closing
from itertools import accumulate
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

import msgspec

from whyops_trace._calls.call import Call, Items
from whyops_trace._guard import attempt, guarded
from whyops_trace._models.assembly import assemble, first_token, is_complete
from whyops_trace._models.streams import is_stream, read_events

#: The last line of a stream of OpenAI's. Some readers, openai before 1.3 among them, stop there and leave it open.
_DONE: Final = re.compile(rb"^data: ?\[DONE\]\r?\n", re.MULTILINE)


class Undo(Protocol):
    """Restores a body, piece by piece, as the provider sent it."""

    def feed(self, chunk: bytes) -> bytes:
        """Return what can be passed on after another piece."""
        ...

    def rest(self) -> bytes:
        """Return what is left at the end."""
        ...


class MakeUndo(Protocol):
    """Makes an :class:`Undo` once it is known whether the body is a stream of events."""

    def __call__(self, *, streams: bool) -> Undo:
        """Return one for a stream, or for JSON in one piece."""
        ...


def is_response(thing: Any) -> bool:
    """Tell whether something is an HTTP response as httpx has them, by what it can do."""
    needed = ("headers", "iter_bytes", "aiter_bytes", "close", "aclose", "is_closed", "is_stream_consumed")
    return all(hasattr(type(thing), name) or hasattr(thing, name) for name in needed)


def is_read(response: Any) -> bool:
    """Tell whether the body of a response has been read, or cannot be any more."""
    return bool(response.is_closed or response.is_stream_consumed)


def read_answer(response: Any) -> Any:
    """Return the answer in a body that has been read: JSON, or a stream. None if it is neither, or was never read."""
    content, _ = attempt(getattr, response, "content")
    body: bytes = content or b"null"
    answer, undecoded = attempt(msgspec.json.decode, body)
    if undecoded is not None and is_stream(body, asked=False):
        return assemble([item for _, item in read_events(body)])
    return answer


def watch(
    response: Any, call: Call, undo: MakeUndo | None = None, then: Callable[[bool | None], None] | None = None
) -> None:
    """
    Watch a response that has not been read. One that is watched already is so for both calls: the inner one ends first.

    Args:
        response: The response.
        call: Ends as the reading does.
        undo: Makes what restores the body as the provider sent it, before anybody sees it.
        then: Called when the reading has ended: with True if the answer was whole, False if it broke off, None if
            its reader left it.

    Raises:
        TypeError: if objects of its class cannot be given another one.
    """
    watching = getattr(response, "_whyops", None)
    if watching is not None:
        watching.calls.append(call)
        return
    response._whyops = Watch(call, undo=undo, then=then)
    response.__class__ = _watched(type(response))


class Watch:
    """
    The part of a body that was read so far.

    Attributes:
        calls: The calls it answers, from the inside out: of a client, and of a function around it.

    Args:
        call: The first of them.
        undo: See :func:`watch`.
        then: See :func:`watch`.
    """

    def __init__(
        self, call: Call, *, undo: MakeUndo | None, then: Callable[[bool | None], None] | None
    ) -> None:
        self.calls = [call]
        self._then = then
        #: True for a stream of events, None until the body tells.
        self._streams: bool | None = None
        self._make_undo = undo
        self._undo: Undo | None = None
        self._chunks: list[bytes] = []
        #: When each came, as the recorder's clock tells it.
        self._moments: list[int] = []
        #: True while the next piece is awaited: whatever closes the response meanwhile is its end.
        self._reading = False
        self._ended = False

    def see(self, chunk: bytes) -> bytes:
        """Keep a piece of the body; return what is passed on of it."""
        self._reading = False
        self._chunks.append(chunk)
        if self._streams is None:
            self._look()
        self._moments.append(self.calls[0].state.recorder.perf_counter_ns())
        if self._streams and _DONE.search(chunk):
            self._end(whole=True)
        return chunk if self._undo is None else self._undo.feed(chunk)

    @guarded("looking at the begin of an answer")
    def _look(self) -> None:
        """Decide if the body is a stream of events, as soon as it tells."""
        model_call = self.calls[0].model_call
        asked = model_call is not None and model_call.streams
        self._streams = is_stream(b"".join(self._chunks), asked=asked)
        if self._streams is not None and self._make_undo is not None:
            self._undo = self._make_undo(streams=self._streams)

    def read(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Pass on the pieces of a body, and end with it."""
        with closing(chunks):  # type: ignore[type-var]
            self._reading = True
            try:
                for chunk in chunks:
                    if passed := self.see(chunk):
                        yield passed
                    self._reading = True
            except BaseException as error:
                if self._reading:
                    self._end(error=error)
                raise
        if rest := self._rest():
            yield rest

    async def aread(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Pass on the pieces of a body as :meth:`read` does."""
        async with aclosing(chunks):  # type: ignore[type-var]
            self._reading = True
            try:
                async for chunk in chunks:
                    if passed := self.see(chunk):
                        yield passed
                    self._reading = True
            except BaseException as error:
                if self._reading:
                    self._end(error=error)
                raise
        if rest := self._rest():
            yield rest

    def _rest(self) -> bytes:
        self._reading = False
        rest = b"" if self._undo is None else self._undo.rest()
        if rest and not self._streams:  # a JSON text, which is passed on at its end
            self._chunks = [rest]
        self._end(whole=True)
        return rest

    def closed(self) -> None:
        """Note that the response was closed, or is gone: it ends here, unless it is closed because it was read."""
        if not self._reading:
            self._end()

    @guarded("recording the end of a stream")
    def _end(self, *, whole: bool = False, error: BaseException | None = None) -> None:
        if self._ended:
            return
        self._ended = True
        # The provider's end of it: its reader's may come before.
        complete = False
        try:
            complete = self._end_calls(whole, error)
        finally:
            if self._then is not None:
                self._then(complete or (False if whole or isinstance(error, Exception) else None))

    def _end_calls(self, whole: bool, error: BaseException | None) -> bool:
        """End the calls. Return True if the answer is complete."""
        body, answer = b"".join(self._chunks), None
        if self._streams:
            items = self._take_events(body)
            complete = is_complete(items) or _tells_error(items)
        else:
            answer, undecoded = attempt(msgspec.json.decode, body)
            complete = undecoded is None
        whole = whole or complete
        self._chunks.clear()
        if error is None and not whole:
            error = GeneratorExit()  # as a generator that nobody reads to its end
        for call in self.calls:
            if error is None:
                call.end(answer)
            else:
                call.fail(error)
        return complete

    def _take_events(self, body: bytes) -> list[Any]:
        """Hand the events of a stream to the calls, and when the first one with output came."""
        events = read_events(body)
        items = [item for _, item in events]
        first = first_token(items)
        moment = None if first is None else self._moment(events[first][0])
        for call in self.calls:
            call.items = Items(items) if items else None
            if moment is not None and call.model_call is not None:
                call.model_call.first_token_ms = call.elapsed_ms(moment)
        return items

    def _moment(self, offset: int) -> int | None:
        """Return when the body had come up to there."""
        ends = accumulate(map(len, self._chunks))
        return next((moment for moment, end in zip(self._moments, ends, strict=True) if end >= offset), None)


def _tells_error(items: list[Any]) -> bool:
    """Tell whether a stream says that it failed; then it has ended, whoever closes it."""
    answer = assemble(items)
    return isinstance(answer, dict) and bool(answer.get("error"))


#: The subclasses made so far.
_classes: WeakKeyDictionary[type[Any], type[Any]] = WeakKeyDictionary()


def _watched(response_class: type[Any]) -> type[Any]:
    """Return a subclass of a class of responses whose instances are watched."""
    if response_class in _classes:
        return _classes[response_class]

    class Watched(response_class):  # type: ignore[misc]
        def iter_bytes(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
            return self._whyops.read(super().iter_bytes(*args, **kwargs))  # type: ignore[no-any-return]

        def aiter_bytes(self, *args: Any, **kwargs: Any) -> AsyncIterator[bytes]:
            return self._whyops.aread(super().aiter_bytes(*args, **kwargs))  # type: ignore[no-any-return]

        def close(self) -> None:
            try:
                super().close()
            finally:
                self._whyops.closed()

        async def aclose(self) -> None:
            try:
                await super().aclose()
            finally:
                self._whyops.closed()

        def __del__(self) -> None:
            self._whyops.closed()

    for name in ("__module__", "__qualname__", "__name__", "__doc__"):
        setattr(Watched, name, getattr(response_class, name))
    return _classes.setdefault(response_class, Watched)
