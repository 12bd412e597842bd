"""
Arrays and tables of numpy, pandas, polars and pyarrow: whole if they are small, else shape, types and head.

A lazy table is only named: nothing is computed for a record.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, Final

from whyops_trace._values.reflection import Pairs, Reader, opaque, package_of, read
from whyops_trace._values.rows import named

#: Largest number of elements of an array that is recorded whole.
MAX_ELEMENTS: Final = 256
#: Largest numbers of elements, rows and columns in a head.
HEAD_ELEMENTS: Final = 8
HEAD_ROWS: Final = 5
HEAD_COLUMNS: Final = 50
#: Packages whose classes may be asked for their head. Any other subclass is the user's code.
_PACKAGES: Final = frozenset({"geopandas", "pandas", "polars", "pyarrow"})


def _table(shape: Any, names: Any, dtypes: Any, rows: Any) -> Pairs:
    """Return a table: its shape, the types of its first columns, and its first rows."""
    names = [name if isinstance(name, str) else str(name) for name in islice(names, HEAD_COLUMNS)]
    head = [named(names, row) for row in rows]
    return Pairs([("shape", list(shape)), ("dtypes", named(names, map(str, dtypes))), ("head", head)])


def _column(length: int, dtype: Any, head: list[Any]) -> Pairs:
    return Pairs([("shape", [length]), ("dtype", str(dtype)), ("head", head)])


def _numpy_array(value: Any, base: Any, limit: int) -> object:
    shape, dtype = read(base, "shape", value), str(read(base, "dtype", value))
    if type(value) is not base:
        return {"shape": shape, "dtype": dtype}
    if value.size <= MAX_ELEMENTS:
        return value.tolist()
    return {"shape": shape, "dtype": dtype, "head": value.flat[:HEAD_ELEMENTS].tolist()}


def _numpy_scalar(value: Any, base: Any, limit: int) -> object:
    number = base.tolist(value)
    return number if type(number) is not type(value) else str(number)  # Python has no long double


def _pandas_frame(value: Any, base: Any, limit: int) -> object:
    head = value.iloc[:HEAD_ROWS, :HEAD_COLUMNS]
    table = _table(value.shape, head.columns, head.dtypes, head.itertuples(index=False, name=None))
    return Pairs([*table, *_labels(head.index)])


def _pandas_series(value: Any, base: Any, limit: int) -> object:
    head = value.iloc[:HEAD_ELEMENTS]
    return Pairs([*_column(len(value), value.dtype, head.tolist()), *_labels(head.index)])


def _pandas_index(value: Any, base: Any, limit: int) -> object:
    return _column(len(value), value.dtype, value[:HEAD_ELEMENTS].tolist())


def _labels(index: Any) -> list[tuple[str, Any]]:
    """Return the labels of the rows of a head as a member, none if they are the numbers of the rows."""
    kind = type(index)
    return (
        [("index", index.tolist())] if package_of(kind) in _PACKAGES and kind.__name__ != "RangeIndex" else []
    )


def _polars_frame(value: Any, base: Any, limit: int) -> object:
    head = value[:HEAD_ROWS, :HEAD_COLUMNS]
    return _table(value.shape, head.columns, head.dtypes, head.rows())


def _polars_column(value: Any, base: Any, limit: int) -> object:
    return _column(len(value), value.dtype, value[:HEAD_ELEMENTS].to_list())


def _arrow_table(value: Any, base: Any, limit: int) -> object:
    columns = [column.slice(0, HEAD_ROWS).to_pylist() for column in value.columns[:HEAD_COLUMNS]]
    return _table(value.shape, value.schema.names, value.schema.types, zip(*columns, strict=True))


def _arrow_column(value: Any, base: Any, limit: int) -> object:
    return _column(len(value), value.type, value.slice(0, HEAD_ELEMENTS).to_pylist())


def _asked(reader: Reader) -> Reader:
    """Return a reader that asks only objects of the packages' own classes."""
    return lambda value, base, limit: (reader if package_of(type(value)) in _PACKAGES else opaque)(
        value, base, limit
    )


def _missing(value: Any, base: type, limit: int) -> None:
    """Return nothing, for what stands in for a missing value."""


#: Readers by the names of their classes.
TABLES: Final[dict[str, Reader]] = {
    "numpy.generic": _numpy_scalar,
    "numpy.ndarray": _numpy_array,
    **dict.fromkeys(("pandas._libs.missing.NAType", "pandas.api.typing.NAType"), _missing),
    **dict.fromkeys(("pandas._libs.tslibs.nattype.NaTType", "pandas.api.typing.NaTType"), _missing),
    "pyarrow.lib.Scalar": _asked(lambda value, base, limit: value.as_py()),
    **dict.fromkeys(("pandas.DataFrame", "pandas.core.frame.DataFrame"), _asked(_pandas_frame)),
    **dict.fromkeys(("pandas.Series", "pandas.core.series.Series"), _asked(_pandas_series)),
    **dict.fromkeys(("pandas.Index", "pandas.core.indexes.base.Index"), _asked(_pandas_index)),
    "polars.dataframe.frame.DataFrame": _asked(_polars_frame),
    "polars.series.series.Series": _asked(_polars_column),
    **dict.fromkeys(("pyarrow.lib.Table", "pyarrow.lib.RecordBatch"), _asked(_arrow_table)),
    **dict.fromkeys(("pyarrow.lib.Array", "pyarrow.lib.ChunkedArray"), _asked(_arrow_column)),
}
