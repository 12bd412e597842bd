"""The demo's tools: a small shop with a real database and real files, made anew for each run."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from whyops_trace import traced_tool

_TABLES: Final = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT NOT NULL);
CREATE TABLE orders (
    id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customers, item TEXT NOT NULL,
    total_cents INTEGER NOT NULL, ordered_on TEXT NOT NULL
);
CREATE TABLE shipments (
    order_id INTEGER PRIMARY KEY REFERENCES orders, carrier TEXT NOT NULL, status TEXT NOT NULL, delivered_on TEXT
);
INSERT INTO customers VALUES (1, 'Mia Schneider', 'Bern'), (2, 'Tom Okafor', 'Leeds');
INSERT INTO orders VALUES
    (8841, 1, 'teapot', 4999, '2026-02-25'), (8852, 1, 'six cups', 3600, '2026-03-03'),
    (8860, 1, 'pound of tea', 1850, '2026-03-05'), (8847, 2, 'kettle', 7900, '2026-03-01');
INSERT INTO shipments VALUES
    (8841, 'Swift', 'delivered', '2026-03-02'), (8852, 'Swift', 'in transit', NULL),
    (8860, 'Parcel One', 'packed', NULL), (8847, 'Swift', 'delivered', '2026-03-04');
"""

_FILES: Final = {
    "returns.txt": """\
Damaged on arrival: the full price within 30 days of delivery.
Changed your mind: the price less 10 % for handling, within 14 days of delivery.
""",
    "warehouse.log": """\
2026-03-04 09:12 order 8852 handed to Swift
2026-03-05 17:40 order 8852 left the depot at Basel
2026-03-06 08:05 order 8860 packed, waiting for Parcel One
""",
}

#: Names of parameter types in a JSON schema.
_JSON_TYPES: Final = {"str": "string", "int": "integer", "bool": "boolean"}


class Shop:
    """
    The agent's tools in the shop.

    Args:
        folder: Directory in which the database and the files are made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._database = folder / "shop.db"
        with closing(sqlite3.connect(self._database)) as connection:
            connection.executescript(_TABLES)
        for name, text in _FILES.items():
            (folder / name).write_text(text, encoding="utf-8")

    @property
    def tools(self) -> Mapping[str, Callable[..., Any]]:
        """The tools of synchronous code, by name."""
        return {tool.__name__: tool for tool in (self.run_sql, self.read_file, self.refund)}

    @property
    def async_tools(self) -> Mapping[str, Callable[..., Awaitable[Any]]]:
        """The tools of asynchronous code, by name."""
        return {tool.__name__: tool for tool in (self.track_parcel, self.search_log)}

    @staticmethod
    def declare(tools: Mapping[str, Callable[..., Any]]) -> list[dict[str, Any]]:
        """Return the declarations of tools for a model. A traced function keeps its signature and its docstring."""
        return [
            {
                "type": "function",
                "function": {
                    "name": name,
                    "description": inspect.getdoc(tool),
                    "parameters": {
                        "type": "object",
                        "properties": {
                            parameter.name: {"type": _JSON_TYPES[parameter.annotation]}
                            for parameter in inspect.signature(tool).parameters.values()
                        },
                    },
                },
            }
            for name, tool in tools.items()
        ]

    @traced_tool
    def run_sql(self, query: str) -> list[dict[str, Any]]:
        """Run a query on the shop's database: customers, orders, shipments."""
        return self._rows(query)

    @traced_tool
    def read_file(self, name: str) -> str:
        """Read one of the shop's files: returns.txt or warehouse.log."""
        return (self._folder / Path(name).name).read_text(encoding="utf-8")

    @traced_tool
    def refund(self, total_cents: int, days_since_delivery: int, damaged: bool) -> dict[str, Any]:
        """Work out the customer's refund by the terms of returns.txt."""
        in_time = days_since_delivery <= (30 if damaged else 14)
        fee = 0 if damaged else total_cents // 10
        return {"refund_cents": total_cents - fee if in_time else 0, "in_time": in_time}

    @traced_tool
    async def track_parcel(self, order: int) -> dict[str, Any]:
        """Return the carrier and the status of an order's parcel."""
        query = "SELECT carrier, status FROM shipments WHERE order_id = ?"
        (row,) = await asyncio.to_thread(self._rows, query, order)
        return {"order": order, **row}

    @traced_tool
    async def search_log(self, text: str) -> list[str]:
        """Return the lines of warehouse.log that contain a text."""
        log = await asyncio.to_thread((self._folder / "warehouse.log").read_text, encoding="utf-8")
        return [line for line in log.splitlines() if text in line]

    def _rows(self, query: str, *parameters: object) -> list[dict[str, Any]]:
        # Read-only: a model writes these queries.
        with closing(sqlite3.connect(f"{self._database.as_uri()}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query, parameters)]
