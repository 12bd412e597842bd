"""Arrays and tables are recorded by their shape, types and head."""

from __future__ import annotations

import json
from types import new_class
from typing import Any

import numpy as np
import pytest

from whyops_trace._values.encoding import encoder
from whyops_trace._values.processor import REDACTED, Redactor

encode = encoder(Redactor().hides)


def decoded(value: object) -> Any:
    return json.loads(encode(value))


def imported(name: str) -> Any:
    """Return a package, or skip the test where it is missing."""
    return pytest.importorskip(name, reason="the session `frameworks` of nox installs it")


COLUMNS = {"id": list(range(1_000)), "password": ["p"] * 1_000}
HEAD = [{"id": number, "password": REDACTED} for number in range(5)]


def test_a_large_array_has_its_first_elements() -> None:
    """Of any number of dimensions, and without a copy of the rest."""
    whole = np.arange(1_000_000).reshape(1_000, 1_000)

    assert decoded(whole[::2]) == {"shape": [500, 1000], "dtype": "int64", "head": list(range(8))}


def test_tables_of_pandas() -> None:
    """Secrets are known by the names of their columns."""
    pd = imported("pandas")
    table = decoded({"table": pd.DataFrame(COLUMNS)})["table"]

    assert (table["shape"], table["head"]) == ([1000, 2], HEAD)
    assert table["dtypes"]["id"] == "int64"


def test_odd_tables_of_pandas() -> None:
    """Missing values, columns of one name or with a number for one, an index of times, and no rows at all."""
    pd = imported("pandas")
    odd = pd.DataFrame([[1, pd.NaT, pd.NA, pd.Timestamp("2026-01-02")]], columns=["a", "a", 3, "when"])

    assert decoded(odd)["head"] == [{"a": 1, "a (2)": None, "3": None, "when": "2026-01-02T00:00:00"}]
    assert decoded(pd.DataFrame()) == {"shape": [0, 0], "dtypes": {}, "head": []}
    assert decoded(pd.DataFrame({str(n): [n] for n in range(1_000)}))["shape"] == [1, 1000]


def test_columns_of_pandas() -> None:
    """And its indexes, which stand alone as well."""
    pd = imported("pandas")

    assert decoded(pd.Series(range(1_000))) == {"shape": [1000], "dtype": "int64", "head": list(range(8))}
    assert decoded(pd.RangeIndex(2))["head"] == [0, 1]
    assert decoded(pd.date_range("2026-01-01", periods=2))["head"] == [
        "2026-01-01T00:00:00",
        "2026-01-02T00:00:00",
    ]


def test_labels_of_the_rows_of_pandas() -> None:
    """What a group or a count is of stands in the index; one that only counts the rows says nothing."""
    pd = imported("pandas")
    sales = pd.DataFrame({"city": ["Bonn", "Rome", "Bonn"], "sold": [1, 2, 3]})

    by_city = decoded(sales.groupby("city").sum())
    assert (by_city["head"], by_city["index"]) == ([{"sold": 4}, {"sold": 2}], ["Bonn", "Rome"])
    assert decoded(sales["city"].value_counts())["index"] == ["Bonn", "Rome"]
    assert decoded(sales.set_index(["city", "sold"]))["index"] == [["Bonn", 1], ["Rome", 2], ["Bonn", 3]]
    assert "index" not in decoded(sales)
    assert "index" not in decoded(sales["city"])


def test_a_users_own_kind_of_table_is_only_named() -> None:
    """Its class may do anything when it is asked."""
    pd = imported("pandas")

    def fail(self: Any) -> Any:
        raise AssertionError

    Mine = new_class("Mine", (pd.DataFrame,), {}, lambda space: space.update(iloc=property(fail)))

    assert decoded(Mine({"a": [1]})).startswith("<")


def test_tables_and_columns_of_polars() -> None:
    """A lazy one is not computed."""
    pl = imported("polars")
    table = pl.DataFrame(COLUMNS)

    assert decoded(table) == {
        "shape": [1000, 2],
        "dtypes": {"id": "Int64", "password": REDACTED},
        "head": HEAD,
    }
    assert decoded(table["id"]) == {"shape": [1000], "dtype": "Int64", "head": list(range(8))}
    assert decoded(table.lazy()) == "<polars.lazyframe.frame.LazyFrame>"


def test_tables_and_columns_of_pyarrow() -> None:
    """Whole, in batches, and single values."""
    pa = imported("pyarrow")
    table = pa.table(COLUMNS)
    told = {"shape": [1000, 2], "dtypes": {"id": "int64", "password": REDACTED}, "head": HEAD}

    assert decoded(table) == told
    assert decoded(table.to_batches()[0]) == told
    assert decoded(table["id"]) == {"shape": [1000], "dtype": "int64", "head": list(range(8))}
    assert decoded(pa.array([1, None])) == {"shape": [2], "dtype": "int64", "head": [1, None]}
    assert decoded(pa.scalar(5)) == 5
