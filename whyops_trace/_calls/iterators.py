"""Stand-ins for iterators that traced functions return, which end the call when they end."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import wrapt

from whyops_trace._calls.call import DETACHED, GeneratorCall
from whyops_trace.context import Scope, get_scope, set_scope

if TYPE_CHECKING:
    from whyops_trace._calls.following import Followed

    Proxy = wrapt.BaseObjectProxy[Any]
else:
    #: The proxy that is not iterable. Other packages may require wrapt 1, which has only the iterable one.
    Proxy = getattr(wrapt, "BaseObjectProxy", wrapt.ObjectProxy)


class Reading:
    """
    The call that returned an iterator, whose scope is current while the iterator makes an item.

    Args:
        followed: Opens the call when the first item is asked for.
    """

    def __init__(self, followed: Followed) -> None:
        self._followed: Followed | None = followed
        self._call: GeneratorCall | None = None
        self._scope: Scope | None = None

    def enter(self) -> None:
        """Enter the scope of the call, unless that has ended."""
        if self._followed is not None:
            followed, self._followed = self._followed, None
            self._call = followed.open({}, GeneratorCall)
        elif self._call is not None:
            self._call.outer = get_scope()
            set_scope(self._scope)

    def leave(self, item: Any) -> Any:
        """Leave the scope, and keep an item in the form that is recorded. Return the item."""
        call = self._call
        if call is None or call.outer is DETACHED:
            return item
        self._scope = get_scope()
        call.detach()
        return call.pass_on(item)

    def finish(self, *, abandoned: bool = False) -> None:
        """Record the items, or that the consumer stopped before the end."""
        call, self._call = self._call, None
        if call is not None:
            call.finish(None, abandoned=abandoned)

    def fail(self, error: BaseException) -> None:
        """Record that the items ended in an error."""
        call, self._call = self._call, None
        if call is not None:
            call.fail(error)

    def __del__(self) -> None:
        self.finish(abandoned=True)


class StandIn(Proxy):
    """
    Stands in for an iterator, and ends the call that returned it when it ends or is dropped.

    Args:
        wrapped: The iterator.
        followed: The call.
    """

    def __init__(self, wrapped: Any, followed: Followed) -> None:
        super().__init__(wrapped)
        self._self_reading = Reading(followed)

    def __copy__(self) -> Any:
        return copy.copy(self.__wrapped__)  # which is no part of the call

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.__wrapped__, memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__wrapped__.__reduce_ex__(protocol)


class FollowedIterator(StandIn):
    """Stands in for a plain iterator."""

    def __iter__(self) -> FollowedIterator:
        return self

    def __next__(self) -> Any:
        reading = self._self_reading
        reading.enter()
        try:
            item = next(self.__wrapped__)
        except StopIteration:
            reading.finish()
            raise
        except BaseException as error:
            reading.fail(error)
            raise
        return reading.leave(item)

    def __enter__(self) -> Any:
        entered = self.__wrapped__.__enter__()
        return self if entered is self.__wrapped__ else entered


class FollowedAsyncIterator(StandIn):
    """Stands in for an asynchronous iterator."""

    def __aiter__(self) -> FollowedAsyncIterator:
        return self

    async def __anext__(self) -> Any:
        reading = self._self_reading
        reading.enter()
        try:
            item = await anext(self.__wrapped__)
        except StopAsyncIteration:
            reading.finish()
            raise
        except BaseException as error:
            reading.fail(error)
            raise
        return reading.leave(item)

    async def __aenter__(self) -> Any:
        entered = await self.__wrapped__.__aenter__()
        return self if entered is self.__wrapped__ else entered


class FollowedStream(FollowedIterator, FollowedAsyncIterator):
    """Stands in for a stream that is read in either way, as LiteLLM has it."""
