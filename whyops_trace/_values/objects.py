"""
The contents of an object, read without running any code of its class.

Classes of some packages are read by the package's own methods, but no subclass of theirs is.

:func:`reader_of` finds the reader for a type: a function that returns one level of an object as simpler values, which
:mod:`whyops_trace._values.encoding` mends further.
"""

from __future__ import annotations

import binascii
import collections
import datetime
import decimal
import enum
import gc
import io
import re
import types
import uuid
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Final

import msgspec

from whyops_trace._values.protobuf import PROTOBUF
from whyops_trace._values.reflection import (
    REDACTED,
    REST,
    TOO_MANY,
    Pairs,
    Reader,
    attributes_of,
    class_attribute,
    dotted,
    globals_of,
    is_genuine,
    is_genuine_dict,
    module_of,
    mro_of,
    name_of,
    namespace_of,
    opaque,
    package_of,
    qualname_of,
    read,
    state_of,
)  # fmt: skip
from whyops_trace._values.rows import ROWS, mapped_reader
from whyops_trace._values.tables import TABLES

#: Largest number of attributes of an object of unknown kind.
MAX_ATTRIBUTES: Final = 50
#: Largest number of classes whose readers of fields are remembered.
MAX_CLASSES: Final = 1_000
#: Packages whose objects are only named, because they are large or record their use.
_NAME_ONLY: Final = frozenset(
    {"dask", "datasets", "duckdb", "geopandas", "ibis", "jax", "pandas", "peewee", "PIL", "polars", "pyarrow",
     "pyspark", "sqlalchemy", "tensorflow", "torch", "unittest", "wrapt", "xarray"}
)  # fmt: skip
#: Packages whose time zones may be asked for their offset. Any other zone is the user's code.
_ZONES: Final = frozenset({"datetime", "dateutil", "pendulum", "pydantic_core", "pytz", "zoneinfo"})
#: Control characters other than the white space of text.
_BINARY: Final = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")
_SCALARS: Final = (type(None), str, int, float, bool, bytes)


def reader_of(kind: type) -> tuple[Reader, type]:
    """Return the reader for a class, and the class of its MRO that it belongs to."""
    for base in (BaseException,) if issubclass(kind, BaseException) else mro_of(kind):
        reader = _READERS.get(id(base)) or _foreign_reader(base)
        if reader is not None:
            return reader, base
    return _object, object


def _foreign_reader(base: type) -> Reader | None:
    reader = _FOREIGN.get(f"{module_of(base)}.{qualname_of(base)}")
    if reader is not None and is_genuine(base):
        return reader
    namespace = namespace_of(base)
    if "_sa_class_manager" in namespace and (mapped := mapped_reader(namespace)):
        return mapped
    if issubclass(type(namespace.get("__dataclass_fields__")), dict):
        return _dataclass
    return _attrs if issubclass(type(namespace.get("__attrs_attrs__")), tuple) else None


def _object(value: object, base: type, limit: int) -> object:
    public = [(name, item) for name, item in state_of(value).items() if not name.startswith("_")]
    if not public or any(package_of(kind) in _NAME_ONLY for kind in mro_of(type(value))):
        return opaque(value, base, limit)
    rest = [(REST, TOO_MANY)] if len(public) > MAX_ATTRIBUTES else []
    return Pairs([("$type", name_of(type(value))), *public[:MAX_ATTRIBUTES], *rest])


def _fields(value: object, names: Iterable[Any]) -> Pairs:
    state = state_of(value)
    return Pairs((name, state[name]) for name in names if type(name) is str and name in state)


def _dataclass(value: object, base: type, limit: int) -> Pairs:
    return _fields(value, list(dict.keys(namespace_of(base)["__dataclass_fields__"])))


def _attrs(value: object, base: type, limit: int) -> Pairs:
    fields = tuple.__iter__(namespace_of(base)["__attrs_attrs__"])
    return _fields(value, [field.name for field in fields if is_genuine(type(field))])


def _model(value: object, base: type, limit: int) -> Pairs:
    extra = state_of(value).get("__pydantic_extra__")
    return Pairs([*attributes_of(value).items(), *(dict.items(extra) if type(extra) is dict else ())])


def model_fields(value: object) -> dict[str, Any] | None:
    """Return the fields of a pydantic model, as they are recorded; None for any other value."""
    state = model_state(value)
    if state is None:
        return None
    return {**state[0], **state[1]} if state[1:] and state[1] else state[0]


def model_state(value: object) -> tuple[dict[str, Any], ...] | None:
    """Return the dicts in which a pydantic model has its fields, and the extra ones; None for any other value."""
    kind = type(value)
    known = _state_readers.get(id(kind))
    if known is None or known[0] is not kind:
        known = kind, _state_reader(kind)
        if len(_state_readers) < MAX_CLASSES:
            _state_readers[id(kind)] = known
    return None if known[1] is None else known[1](value)


def _state_reader(kind: type) -> Callable[[object], tuple[dict[str, Any], ...] | None] | None:
    state, extra = class_attribute(kind, "__dict__"), class_attribute(kind, "__pydantic_extra__")
    if reader_of(kind)[0] is not _model or not is_genuine_dict(state):
        return None

    def read(value: object) -> tuple[dict[str, Any], ...] | None:
        try:
            more = extra.__get__(value)
        except AttributeError:  # the model was made without its fields
            return None
        return (state.__get__(value), more) if type(more) is dict else (state.__get__(value),)

    return read


#: Functions that read the state of a model, None for classes of anything else, by the id of the class.
_state_readers: Final[
    dict[int, tuple[type, Callable[[object], tuple[dict[str, Any], ...] | None] | None]]
] = {}


def _items(value: Any, base: Any, limit: int) -> list[Any]:
    return list(base.__iter__(value))


def _range(value: range, base: type, limit: int) -> object:
    return str(value) if value[limit : limit + 1] else list(value)


def _tuple(value: Any, base: type, limit: int) -> object:
    items = tuple.__iter__(value)
    names = class_attribute(type(value), "_fields")
    if type(names) is tuple and len(names) == tuple.__len__(value):  # a named tuple
        return Pairs(zip(names, items, strict=False))
    return list(items)


def read_bytes(value: Any, base: Any, limit: int) -> object:
    """Return bytes as text if they are, else in base64; a :data:`Reader`."""
    try:
        raw = value.tobytes() if base is memoryview else bytes(base.__getitem__(value, slice(None)))
    except ValueError:  # a memoryview that was released
        return opaque(value, base, limit)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = "\0"
    if is_text(text):
        return text
    return {"base64": binascii.b2a_base64(raw, newline=False).decode(), "bytes": len(raw)}


def is_text(decoded: str) -> bool:
    """Tell whether decoded bytes are a text, which has no control characters but white space."""
    return _BINARY.search(decoded) is None


def _zoned(moment: datetime.datetime | datetime.time) -> str:
    zone = moment.tzinfo
    if zone is None or package_of(type(zone)) in _ZONES:
        return moment.isoformat()
    return f"{moment.replace(tzinfo=None).isoformat()}[{name_of(type(zone))}]"


def _path(value: Any, base: type, limit: int) -> str:
    flavour: Any = next(
        kind for kind in mro_of(type(value)) if package_of(kind) == "pathlib" and is_genuine(kind)
    )
    parts = read(base, "_raw_paths" if "_raw_paths" in namespace_of(base) else "_parts", value)
    return str(flavour(*map(str.__str__, parts)))


def _exception(value: BaseException, base: type, limit: int) -> dict[str, str]:
    return {"type": name_of(type(value)), "message": _message(value)}


def _message(error: BaseException) -> str:
    """Return ``str(error)`` if that runs only builtin code, else the texts among the arguments."""
    if module_of(type(error)) == "pydantic_core._pydantic_core" and is_genuine(type(error)):
        return _validation(error)
    arguments = read(BaseException, "args", error)
    members, author = [*arguments], None
    for base in reversed(mro_of(type(error))):
        builtin = module_of(base) == "builtins" and is_genuine(base)
        for name, item in list(namespace_of(base).items()):
            if builtin and type(item) is types.MemberDescriptorType:
                members.append(item.__get__(error))
            elif type(name) is str and name == "__str__":
                author = item if builtin else None
    if author and all(any(type(item) is kind for kind in _SCALARS) for item in members):
        return str(author(error))
    return ", ".join(str.__str__(item) for item in arguments if issubclass(type(item), str))


def _validation(error: Any) -> str:
    """Return what pydantic found wrong, in its words, without the values: their ``repr()`` is the user's code."""
    try:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)
        count, title = error.error_count(), error.title
    except Exception:  # noqa: BLE001 - of a validator's exception
        return ""
    lines = [f"{count} validation error{'' if count == 1 else 's'} for {title}"]
    for each in wrong:
        lines += [".".join(map(str, each["loc"]))] if each["loc"] else []
        lines.append(f"  {each['msg']} [type={each['type']}]")
    return "\n".join(lines)


def _function(value: Any, base: type, limit: int) -> str:
    word, function = ("method", value.__func__) if base is types.MethodType else ("function", value)
    if type(function) is types.FunctionType:
        return f"<{word} {dotted(function.__module__, function.__qualname__)}>"
    if type(function) is types.BuiltinFunctionType:
        return f"<{word} {dotted(function.__module__, function.__name__)}>"
    return opaque(value, base, limit)


def _generator(value: Any, base: type, limit: int) -> str:
    frame = getattr(value, {"generator": "gi_frame", "coroutine": "cr_frame"}.get(base.__name__, "ag_frame"))
    module = None if frame is None else dict.get(frame.f_globals, "__name__")
    return f"<{base.__name__} {dotted(module, value.__qualname__)}>"


def _text(value: object, base: type, limit: int) -> str:
    """Return ``str(value)`` of a class itself. A subclass may have any code behind it."""
    return str(value) if type(value) is base else opaque(value, base, limit)


def _by(method: str) -> Reader:
    """Return a reader that calls the method of the base itself, not a subclass's override."""
    return lambda value, base, limit: getattr(base, method)(value)


#: Readers by the id of their class. Hashing a class may run code of its metaclass.
_READERS: Final[dict[int, Reader]] = {
    id(base): reader
    for bases, reader in (
        ((str, decimal.Decimal), _by("__str__")),
        ((int,), _by("__int__")),
        ((float,), _by("__float__")),
        ((complex,), _by("__repr__")),
        ((bytes, bytearray, memoryview), read_bytes),
        ((Pairs,), lambda value, base, limit: value),
        ((dict,), lambda value, base, limit: Pairs(islice(dict.items(value), limit))),
        ((type({}.items()),), lambda value, base, limit: Pairs(_items(value, base, limit))),
        ((list, set, frozenset, collections.deque, type({}.keys()), type({}.values())), _items),
        ((range,), _range),
        ((tuple,), _tuple),
        # No method of a mapping proxy may be called: the mapping behind it may be a user's.
        ((types.MappingProxyType,), lambda value, base, limit: gc.get_referents(value)[0]),
        ((datetime.date,), _by("isoformat")),
        (
            (datetime.datetime,),
            lambda x, base, _: _zoned(datetime.datetime.combine(base.date(x), base.timetz(x))),
        ),
        (
            (datetime.time,),
            lambda x, base, _: _zoned(datetime.datetime.combine(datetime.date.min, x).timetz()),
        ),
        ((datetime.timedelta,), _by("total_seconds")),
        ((enum.Enum,), lambda value, base, limit: attributes_of(value).get("_value_")),
        ((uuid.UUID,), lambda value, base, limit: str(base(int=read(base, "int", value)))),
        ((re.Pattern,), lambda value, base, limit: value.pattern),
        ((msgspec.Struct,), lambda value, base, limit: Pairs(state_of(value).items())),
        ((BaseException,), _exception),
        ((type,), lambda value, base, limit: f"<class {name_of(value)}>"),
        (
            (types.ModuleType,),
            lambda value, base, limit: f"<module {str.__str__(globals_of(value)['__name__'])}>",
        ),
        ((types.FunctionType, types.BuiltinFunctionType, types.MethodType), _function),
        ((types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType), _generator),
        ((io.IOBase.__base__,), opaque),
        ((object,), _object),
    )
    for base in bases
}

#: Readers of classes that may not be loaded, by name. They are used only for the genuine class of that name.
_FOREIGN: Final[dict[str, Reader]] = {
    "array.array": _items,
    "fractions.Fraction": lambda x, base, _: str(
        base(read(base, "_numerator", x), read(base, "_denominator", x))
    ),
    **dict.fromkeys(
        (
            *(
                f"ipaddress.IPv{version}{kind}"
                for version in (4, 6)
                for kind in ("Address", "Interface", "Network")
            ),
            *("httpx.URL", "httpx2.URL", "yarl.URL", "zoneinfo.ZoneInfo"),
            *("pydantic_core._pydantic_core.MultiHostUrl", "pydantic_core._pydantic_core.Url"),
        ),
        _text,
    ),
    "pathlib.PurePath": _path,
    "pathlib._local.PurePath": _path,  # its home in Python 3.13
    "pydantic.main.BaseModel": _model,
    "pydantic.networks._BaseMultiHostUrl": lambda value, base, limit: attributes_of(value).get("_url"),
    "pydantic.networks._BaseUrl": lambda value, base, limit: attributes_of(value).get("_url"),
    "pydantic.root_model.RootModel": lambda value, base, limit: attributes_of(value).get("root"),
    "pydantic.types.Secret": lambda value, base, limit: REDACTED,
    "pydantic.types.SecretBytes": lambda value, base, limit: REDACTED,
    "pydantic.types.SecretStr": lambda value, base, limit: REDACTED,
    "pydantic.v1.main.BaseModel": _model,
    "pydantic.v1.types.SecretBytes": lambda value, base, limit: REDACTED,
    "pydantic.v1.types.SecretStr": lambda value, base, limit: REDACTED,
    **PROTOBUF,
    **ROWS,
    **TABLES,
}
