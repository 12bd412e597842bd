"""Stand-ins for iterators that traced functions return, which end the call when they end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import wrapt

from whyops_trace._calls.call import Followed

if TYPE_CHECKING:
    Proxy = wrapt.BaseObjectProxy[Any]
else:
    #: The proxy that is not iterable. Other packages may require wrapt 1, which has only the iterable one.
    Proxy = getattr(wrapt, "BaseObjectProxy", wrapt.ObjectProxy)


class FollowedIterator(Proxy):
    """
    Stands in for an iterator, and ends the call that returned it when it ends or is dropped.

    Args:
        wrapped: The iterator.
        followed: The call.
    """

    def __init__(self, wrapped: Any, followed: Followed) -> None:
        super().__init__(wrapped)
        self._self_followed = followed

    def __iter__(self) -> FollowedIterator:
        return self

    def __next__(self) -> Any:
        try:
            return self._self_followed.pass_on(next(self.__wrapped__))
        except StopIteration:
            self._self_followed.finish(None, abandoned=False)
            raise
        except BaseException as error:
            self._self_followed.fail(error)
            raise


class FollowedAsyncIterator(Proxy):
    """Stands in for an asynchronous iterator as :class:`FollowedIterator` does for a plain one."""

    def __init__(self, wrapped: Any, followed: Followed) -> None:
        super().__init__(wrapped)
        self._self_followed = followed

    def __aiter__(self) -> FollowedAsyncIterator:
        return self

    async def __anext__(self) -> Any:
        try:
            return self._self_followed.pass_on(await anext(self.__wrapped__))
        except StopAsyncIteration:
            self._self_followed.finish(None, abandoned=False)
            raise
        except BaseException as error:
            self._self_followed.fail(error)
            raise
