"""A SQLite file of a destination that can be done without."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from whyops_trace._database import Database, Upgrade
from whyops_trace._guard import warn_once
from whyops_trace.exceptions import StoreError


class StateFile:
    """
    One SQLite file. If it cannot be read or written that is logged once, and the program goes on without it.

    Args:
        path: The file. The first write makes it.
        schema: The statements that make its tables; see :class:`~whyops_trace._database.Database`.
        upgrades: What brings a file of an earlier format to this one.
        without: What is lost without the file: a sentence without its end.
    """

    def __init__(
        self, path: str | os.PathLike[str], schema: str, upgrades: Sequence[Upgrade] = (), *, without: str
    ) -> None:
        self._database = Database(path, schema, upgrades)
        self._without = without

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Return all rows of a statement; none if the file cannot be read."""
        try:
            return self._database.rows(statement, *parameters)
        except StoreError as error:
            self._complain(error)
            return []

    def write(self, *statements: tuple[str, Iterable[Sequence[object]]]) -> bool:
        """
        Execute statements in one transaction.

        Args:
            statements: Each with the parameters of all its executions.

        Returns:
            True if what they wrote is on disk; False if nothing is.
        """
        try:
            with self._database.transaction() as connection:
                for statement, parameters in statements:
                    connection.executemany(statement, parameters)
        except StoreError as error:
            self._complain(error)
            return False
        return True

    def close(self) -> None:
        """Close the file. The next use opens it again."""
        self._database.close()

    def _complain(self, error: StoreError) -> None:
        warn_once(f"state file: {self._database.path}", "%s: %s", self._without, error)
