"""Values as programs have them, for property tests."""

from __future__ import annotations

import datetime
import pathlib
from collections import OrderedDict, deque
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

#: For every property test: the same examples in each run, and no limit of time.
STEADY = settings(derandomize=True, deadline=None)

#: Any text, NUL and lone surrogates included.
texts = st.text(st.characters(exclude_categories=()), max_size=20)

#: Numbers of any size, NaN and infinities included.
numbers = st.integers() | st.integers(-(2**80), 2**80) | st.floats()

scalars = st.none() | st.booleans() | numbers | texts


def _containers(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(items, max_size=5)
    return lists | lists.map(tuple) | st.dictionaries(texts, items, max_size=5)


#: What a JSON library would take, and some values that it would mangle.
json_values = st.recursive(scalars, _containers, max_leaves=20)


class Account:
    """An object of no known kind."""

    def __init__(self, **fields: object) -> None:
        self.__dict__.update(fields)


_leaves = (
    scalars
    | st.binary(max_size=20)
    | st.binary(max_size=20).map(bytearray)
    | st.decimals()
    | st.fractions()
    | st.uuids()
    | st.complex_numbers()
    | st.datetimes(timezones=st.none() | st.just(datetime.UTC))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.lists(texts.map(lambda text: text.replace("\0", "")), max_size=3).map(
        lambda parts: pathlib.PurePath(*parts)
    )
    | texts.map(ValueError)
    | st.sampled_from([int, len, print, datetime, Account.__init__, ..., object()])
)
_keys = scalars | st.binary(max_size=5) | st.dates() | st.tuples(scalars, scalars)


def _objects(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(items, max_size=5)
    mappings = st.dictionaries(_keys, items, max_size=5)
    return (
        lists
        | lists.map(tuple)
        | lists.map(deque)
        | lists.map(iter)
        | st.sets(_keys, max_size=5)
        | st.frozensets(_keys, max_size=5)
        | mappings
        | mappings.map(OrderedDict)
        | mappings.map(lambda mapping: mapping.items())
        | mappings.map(lambda mapping: mapping.values())
        | st.dictionaries(texts, items, max_size=5).map(lambda fields: Account(**fields))
        | lists.map(lambda arguments: ValueError(*arguments))
    )


#: Values of every sort.
python_values = st.recursive(_leaves, _objects, max_leaves=20)
