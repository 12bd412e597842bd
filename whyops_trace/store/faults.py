"""Faults of the library while it stores or reads, told from damage of the file."""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from typing import Final, ParamSpec, TypeVar

from msgspec import MsgspecError

from whyops_trace._database import UnstorableError
from whyops_trace._database_file import DamagedError, is_no_text
from whyops_trace._guard import attempt
from whyops_trace.exceptions import StoreError, WhyOpsError


class DamagedTraceError(StoreError):
    """A record of one trace is damaged. The others stay readable."""


P = ParamSpec("P")
R = TypeVar("R")

#: What Python raises for content that nobody wrote so.
NONSENSE: Final = (
    ArithmeticError, AttributeError, LookupError, MsgspecError, RecursionError, TypeError, ValueError, zlib.error,
)  # fmt: skip


def storable(store: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """
    Return the result of a function that stores records.

    Raises:
        UnstorableError: if it fails at what is in one of them. The file is no matter of it, and stays where it is.
        WhyOpsError: if it fails at the file.
        MemoryError: if there is not enough memory.
    """
    result, error = attempt(store, *args, **kwargs)
    if isinstance(error, (WhyOpsError, MemoryError)):
        raise error
    if error is not None:
        raise UnstorableError(f"{type(error).__name__}: {error}") from error
    return result  # type: ignore[return-value]  # without an error there is one


@contextlib.contextmanager
def stored() -> Iterator[None]:
    """
    Turn errors about what rows of the store have, as they are read and decoded.

    Raises:
        DamagedError: if it is nothing that any version writes.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        raise (DamagedError(str(error)) if is_no_text(error) else error) from error
    except NONSENSE as error:
        raise DamagedError(repr(error)) from error
