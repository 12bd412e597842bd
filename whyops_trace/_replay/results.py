"""The outcome of a recorded call, returned, yielded or raised, for the call that it answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from typing import Any, NoReturn

from whyops_trace._replay.answers import words
from whyops_trace._replay.failures import exception
from whyops_trace._replay.recording import RecordedCall
from whyops_trace._replay.values import LostError, annotation_of, check_whole, made_again
from whyops_trace._shapes import dict_of, list_of, text_of

#: pytest shows a failure where the program is, without the frames of this module.
__tracebackhide__ = True


class Results:
    """
    Makes the results of recorded calls again.

    Args:
        fail: Raises, given what cannot be made again and what to do.
        notes: Takes what was not as it was.
    """

    def __init__(self, fail: Callable[[str], NoReturn], notes: list[str]) -> None:
        self._fail = fail
        self._notes = notes

    def result(self, found: RecordedCall, function: Any) -> Any:
        """Return what a recorded call returned, or raise what it raised."""
        self.check_ended(found)
        if found.outcome == "cancelled" and found.error is None:
            self._fail(f"{found} was cancelled when it was recorded; answer it with swap=.")
        if found.error is not None:
            self._raise(found, found.error, _home(function))
        answer = found.answer
        if isinstance(raised := dict_of(answer).get("raised"), dict) and found.outcome != "ok":
            self._raise(found, raised, _home(function))
        if not found.is_captured:
            self._fail(
                f"The result of {found} was not recorded (capture_output=False); list it in live= or swap=."
            )
        if found.is_redacted:
            self._fail(
                f"The result of {found} held a secret, which was not recorded; answer it with swap=, or let "
                "redact_keep= name the key that is none."
            )
        if found.kind == "embedding":
            self._fail(f"The vectors of {found} were not recorded; list {found.name!r} in live= or swap=.")
        try:
            return self._made_again(found, answer, function)
        except LostError as error:
            self._fail(f"{found} cannot be replayed: {error}.")

    def _made_again(self, found: RecordedCall, answer: Any, function: Any) -> Any:
        annotation = annotation_of(function)
        if found.kind == "llm":
            if not found.returned:
                return text_of(dict_of(answer).get("content"))
            if found.raw is None:
                raise LostError(
                    f"the answer of class {found.returned} was not recorded as it came; trace the client inside with "
                    "sdk.openai(...) or sdk.anthropic(...), or answer it with swap="
                )
            check_whole(found.raw)
            return made_again(found.raw, found.returned, annotation, _home(function))
        if isinstance(answer, dict) and "items" in answer and "count" in answer and not found.returned:
            return Items(self.items(found, _home(function)))
        value = (
            answer["result"]
            if isinstance(answer, dict) and list(answer) == ["result"] and found.returned != "dict"
            else answer
        )
        check_whole(value)
        return made_again(value, found.returned, annotation, _home(function))

    def _raise(self, found: RecordedCall, told: Mapping[str, Any], home: str) -> None:
        error, is_same = exception(told, home)
        if not is_same:
            self._notes.append(
                f"{found} raised {text_of(told.get('type'))}, which cannot be made again; in the replay it is "
                f"{type(error).__qualname__}"
            )
        raise error

    def items(self, found: RecordedCall, home: str) -> Generator[Any, None, Any]:
        """Yield the items of a recorded generator, and return or raise what it did."""
        self.check_ended(found)
        if not found.is_captured:
            self._fail(
                f"The items of {found} were not recorded (capture_output=False); list it in live= or swap=."
            )
        answer = dict_of(found.answer)
        if found.kind == "llm":
            items, count = list[Any](words(text_of(answer.get("content")))), 0
        else:
            items, count = list_of(answer.get("items")), answer.get("count", 0)
            if "items" not in answer and found.error is None:
                self._fail(f"The items of {found} were accumulated, not recorded; list it in live= or swap=.")
        try:
            check_whole(items, "items")
        except LostError as error:
            self._fail(f"{found} cannot be replayed: {error}.")
        for item in items:  # noqa: UP028 - a list takes nothing that is sent
            yield item
        if found.error is not None:
            self._raise(found, found.error, home)
        if count > len(items):
            self._fail(
                f"Of the {count:,} items of {found} only the first {len(items):,} were recorded; answer it with swap=."
            )
        if found.outcome == "cancelled":
            self._fail(
                f"{found} was left after {len(items)} items when it was recorded, and is read further now."
            )
        return answer.get("returned")

    def check_kept(self, found: RecordedCall) -> None:
        """
        Check that the answer of a model was recorded, and held no secret.

        Raises:
            ReplayMiss: if not.
        """
        if not found.is_captured:
            self._fail(
                f"The answer of {found} was not recorded (capture_output=False); answer it with swap=."
            )
        if found.is_redacted:
            self._fail(f"The answer of {found} held a secret, which was not recorded; answer it with swap=.")

    def check_ended(self, found: RecordedCall) -> None:
        """
        Check that a recorded call ended.

        Raises:
            ReplayMiss: if it did not.
        """
        if found.outcome == "open":
            self._fail(
                f"{found} never ended when it was recorded: its process died in it. Answer it with swap=."
            )


class Items:
    """Items that are read in either way, as what returned them was not recorded."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items

    def __iter__(self) -> Items:
        return self

    def __next__(self) -> Any:
        return next(self._items)

    def __aiter__(self) -> Items:
        return self

    async def __anext__(self) -> Any:
        for item in self._items:
            return item
        raise StopAsyncIteration


def _home(function: Any) -> str:
    return text_of(getattr(function, "__module__", ""))


def home_of(items: Any) -> str:
    """Return the name of the module of a generator that has not begun."""
    frame = getattr(items, "gi_frame", None) or getattr(items, "ag_frame", None)
    return text_of(frame.f_globals.get("__name__")) if frame is not None else ""


async def in_turn(items: Iterator[Any]) -> AsyncIterator[Any]:
    """Yield items asynchronously."""
    for item in items:
        yield item


def items_of(made: Any, is_async: bool) -> Any:
    """Return the items that a user's function made in place of a generator, as a generator of its kind."""

    def sync() -> Any:
        return (yield from made)

    async def later() -> Any:
        if hasattr(made, "__aiter__"):
            async for item in made:
                yield item
        else:
            for item in made:
                yield item

    return later() if is_async else sync()
