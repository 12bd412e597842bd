"""
Rows of databases, as their data.

Nothing here asks a database: a result is not consumed, a query not run, and what was not loaded is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from whyops_trace._values.reflection import (
    Pairs,
    Reader,
    attributes_of,
    class_attribute,
    name_of,
    namespace_of,
    opaque,
    read,
)


def named(names: Iterable[Any], values: Iterable[Any]) -> Pairs:
    """Return values under their names. A name that comes again has its number added: ``id``, ``id (2)``."""
    counts: dict[str, int] = {}
    pairs = Pairs()
    for name, value in zip(names, values, strict=False):
        if type(name) is str:
            counts[name] = count = counts.get(name, 0) + 1
            name = name if count == 1 else f"{name} ({count})"  # noqa: PLW2901
        pairs.append((name, value))
    return pairs


def mapped_reader(namespace: Any) -> Reader | None:
    """Return the reader for a class that SQLAlchemy has mapped to a table, None for any other class."""
    manager = type(namespace.get("_sa_class_manager"))
    return _sqlalchemy_object if name_of(manager) == "sqlalchemy.orm.instrumentation.ClassManager" else None


def _sqlalchemy_object(value: Any, base: type, limit: int) -> Pairs:
    """Return the loaded attributes of a mapped object, or only its identity if a commit has expired them."""
    attributes = attributes_of(value)
    names = dict.keys(namespace_of(base)["_sa_class_manager"])
    loaded = [(name, attributes[name]) for name in names if name in attributes]
    if not loaded:
        key = attributes_of(attributes.get("_sa_instance_state")).get("key")
        loaded = [("identity", key[1])] if type(key) is tuple and len(key) > 1 else []
    return Pairs([("$type", name_of(type(value))), *loaded])


def _sqlalchemy_row(value: Any, base: type, limit: int) -> object:
    data, parent = (class_attribute(base, name).__get__(value) for name in ("_data", "_parent"))
    keys = class_attribute(type(parent), "_keys")
    names = keys.__get__(parent) if hasattr(type(keys), "__get__") else None
    if type(data) is not tuple:
        return opaque(value, base, limit)
    return named(list(names), data[:limit]) if isinstance(names, Iterable) else list(data[:limit])


def _sqlite_row(value: Any, base: Any, limit: int) -> Pairs:
    return named(base.keys(value), base.__getitem__(value, slice(limit)))


def _psycopg2_row(value: Any, base: type, limit: int) -> object:
    places, items = read(base, "_index", value), list.__getitem__(value, slice(limit))
    return named(dict.keys(places), items) if issubclass(type(places), dict) else items


def _asyncpg_record(value: Any, base: Any, limit: int) -> Pairs:
    return named(base.keys(value), base.values(value))


def _django_object(value: Any, base: type, limit: int) -> Pairs:
    """Return the loaded fields of a model's instance, and the related objects that are at hand."""
    attributes = attributes_of(value)
    state = attributes_of(attributes.get("_state"))
    related = [state.get("fields_cache"), attributes.get("_prefetched_objects_cache")]
    fields = [(name, item) for name, item in attributes.items() if not name.startswith("_")]
    loaded = [pair for cache in related if type(cache) is dict for pair in list(dict.items(cache))]
    return Pairs([("$type", name_of(type(value))), *fields, *loaded])


def _django_query(value: Any, base: type, limit: int) -> object:
    """Return the results of a query that was evaluated, else its name."""
    attributes = attributes_of(value)
    results = attributes.get("_result_cache")
    model: Any = attributes.get("model")
    if type(results) is list:
        return results
    of = f" of {name_of(model)}" if issubclass(type(model), type) else ""
    return f"<{name_of(type(value))}{of}, not evaluated>"


def _peewee_object(value: Any, base: type, limit: int) -> Pairs:
    data = attributes_of(value).get("__data__")
    return Pairs([("$type", name_of(type(value))), *(dict.items(data) if type(data) is dict else ())])


#: Readers by the names of their classes.
ROWS: Final[dict[str, Reader]] = {
    "asyncpg.protocol.record.Record": _asyncpg_record,
    "bson.objectid.ObjectId": lambda value, base, limit: bytes.hex(read(base, "_ObjectId__id", value)),
    "django.db.models.base.Model": _django_object,
    "django.db.models.query.QuerySet": _django_query,
    "django.db.models.query.RawQuerySet": _django_query,
    "peewee.Model": _peewee_object,
    "psycopg2.extras.DictRow": _psycopg2_row,
    "sqlalchemy.engine.row.Row": _sqlalchemy_row,
    "sqlalchemy.engine.row.RowMapping": _sqlalchemy_row,
    "sqlite3.Row": _sqlite_row,
}
