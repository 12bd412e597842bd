"""
The contents of an object, read without running any code of its class.

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
import sys
import types
import uuid
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, Final, TypeAlias

import msgspec

REDACTED: Final = "[redacted]"
TOO_MANY: Final = "[too many items]"
#: The key of :data:`TOO_MANY` in an object that was cut short.
REST: Final = "..."
#: Largest number of attributes of an object of unknown kind.
MAX_ATTRIBUTES: Final = 50
#: Largest number of elements of a numpy array. Only shape and type of a larger one are worth storing.
MAX_ELEMENTS: Final = 256
#: Largest number of classes whose readers of fields are remembered.
MAX_CLASSES: Final = 1_000

#: Function that returns one level of an object as simpler values: a JSON scalar, a list or :class:`Pairs` of values to
#: be mended, or another object in its place. It is called with the object, the class of its MRO that the reader is
#: for, and the largest number of items to return.
Reader: TypeAlias = Callable[[Any, Any, int], object]


class Pairs(list[tuple[Any, Any]]):
    """Entries of a mapping, not yet mended. A dict would hash and compare the keys."""


# These descriptors are CPython's own. Their results need no attribute lookup, which a class or metaclass could
# override.

_mro: Final[Callable[[type], tuple[type, ...]]] = vars(type)["__mro__"].__get__
_namespace: Final[Callable[[type], Mapping[str, Any]]] = vars(type)["__dict__"].__get__
_globals: Final[Callable[[object], dict[str, Any]]] = vars(types.ModuleType)["__dict__"].__get__

#: The docstring of the ``__dict__`` descriptor that every class statement makes. Proxies written in C have another
#: descriptor, which answers for the object behind them.
_GENUINE: Final = vars(type("_", (), {}))["__dict__"].__doc__
#: Modules whose names add nothing to the name of a class.
_OMITTED: Final = frozenset({"builtins", "__main__", "_io", "_thread"})
#: Packages whose objects are only named, because they are large or record their use.
_NAME_ONLY: Final = frozenset(
    {"jax", "pandas", "PIL", "polars", "pyarrow", "tensorflow", "torch", "unittest", "wrapt"}
)
#: Packages whose time zones may be asked for their offset. Any other zone is the user's code.
_ZONES: Final = frozenset({"datetime", "dateutil", "pendulum", "pydantic_core", "pytz", "zoneinfo"})
#: Control characters other than the white space of text.
_BINARY: Final = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")
_SCALARS: Final = (type(None), str, int, float, bool, bytes)


def _get(base: type, name: str, value: object) -> Any:
    """Return the attribute that the descriptor *name* of a class of the value's MRO reads from the value."""
    return _namespace(base)[name].__get__(value)


def _module(kind: type) -> str:
    try:
        module = _get(type, "__module__", kind)
    except AttributeError:  # the class was made without the name of a module
        return "builtins"
    return module if type(module) is str else "builtins"


def _qualname(kind: type) -> str:
    return str.__str__(_get(type, "__qualname__", kind))


def _dotted(module: object, name: str) -> str:
    name = str.__str__(name)
    return name if type(module) is not str or module in _OMITTED else f"{module}.{name}"


def name_of(kind: type) -> str:
    return _dotted(_module(kind), _qualname(kind))


def _package(kind: type) -> str:
    return _module(kind).partition(".")[0]


def _is_genuine(kind: type) -> bool:
    """Return True if a class is the one of its name in its module, and not a namesake."""
    module = sys.modules.get(_module(kind))
    return issubclass(type(module), types.ModuleType) and _globals(module).get(_qualname(kind)) is kind


def _class_attribute(kind: type, name: str) -> Any:
    """Return the raw attribute of a name in the nearest class of the MRO that has it."""
    return next((_namespace(base)[name] for base in _mro(kind) if name in _namespace(base)), None)


def _attributes(value: object) -> dict[str, Any]:
    """Return the instance ``__dict__`` of an object, an empty dict if it has no genuine one."""
    descriptor = _class_attribute(type(value), "__dict__")
    if not _is_genuine_dict(descriptor):
        return {}
    return {name: item for name, item in list(dict.items(descriptor.__get__(value))) if type(name) is str}


def _is_genuine_dict(descriptor: Any) -> bool:
    """Return True if a class's ``__dict__`` descriptor reads the instance's own."""
    kind = type(descriptor)
    return kind is types.MemberDescriptorType or (
        kind is types.GetSetDescriptorType and descriptor.__doc__ == _GENUINE
    )


def _state(value: object) -> dict[str, Any]:
    """Return the attributes of an object, in slots and in its ``__dict__``."""
    state: dict[str, Any] = {}
    for base in reversed(_mro(type(value))):
        slots = list(_namespace(base).items()) if "__slots__" in _namespace(base) else []
        for name, slot in slots:
            if type(slot) is types.MemberDescriptorType and type(name) is str:
                try:
                    state[name] = slot.__get__(value)
                except (AttributeError, TypeError):  # empty, or a slot of another class
                    continue
    return state | _attributes(value)


def reader_of(kind: type) -> tuple[Reader, type]:
    """Return the reader for a class, and the class of its MRO that it belongs to."""
    for base in (BaseException,) if issubclass(kind, BaseException) else _mro(kind):
        reader = _READERS.get(id(base)) or _foreign_reader(base)
        if reader is not None:
            return reader, base
    return _object, object


def _foreign_reader(base: type) -> Reader | None:
    reader = _FOREIGN.get(f"{_module(base)}.{_qualname(base)}")
    if reader is not None and _is_genuine(base):
        return reader
    namespace = _namespace(base)
    if issubclass(type(namespace.get("__dataclass_fields__")), dict):
        return _dataclass
    return _attrs if issubclass(type(namespace.get("__attrs_attrs__")), tuple) else None


def opaque(value: object, base: type, limit: int) -> str:
    return f"<{name_of(type(value))}>"


def _object(value: object, base: type, limit: int) -> object:
    public = [(name, item) for name, item in _state(value).items() if not name.startswith("_")]
    if not public or any(_package(kind) in _NAME_ONLY for kind in _mro(type(value))):
        return opaque(value, base, limit)
    rest = [(REST, TOO_MANY)] if len(public) > MAX_ATTRIBUTES else []
    return Pairs([("$type", name_of(type(value))), *public[:MAX_ATTRIBUTES], *rest])


def _fields(value: object, names: Iterable[Any]) -> Pairs:
    state = _state(value)
    return Pairs((name, state[name]) for name in names if type(name) is str and name in state)


def _dataclass(value: object, base: type, limit: int) -> Pairs:
    return _fields(value, list(dict.keys(_namespace(base)["__dataclass_fields__"])))


def _attrs(value: object, base: type, limit: int) -> Pairs:
    fields = tuple.__iter__(_namespace(base)["__attrs_attrs__"])
    return _fields(value, [field.name for field in fields if _is_genuine(type(field))])


def _model(value: object, base: type, limit: int) -> Pairs:
    extra = _state(value).get("__pydantic_extra__")
    return Pairs([*_attributes(value).items(), *(dict.items(extra) if type(extra) is dict else ())])


def model_fields(value: object) -> dict[str, Any] | None:
    """Return the fields of a pydantic model, as they are recorded; None for any other value."""
    kind = type(value)
    known = _fields_readers.get(id(kind))
    if known is None or known[0] is not kind:
        known = kind, _fields_reader(kind)
        if len(_fields_readers) < MAX_CLASSES:
            _fields_readers[id(kind)] = known
    return None if known[1] is None else known[1](value)


def _fields_reader(kind: type) -> Callable[[object], dict[str, Any] | None] | None:
    state, extra = _class_attribute(kind, "__dict__"), _class_attribute(kind, "__pydantic_extra__")
    if reader_of(kind)[0] is not _model or not _is_genuine_dict(state):
        return None

    def read(value: object) -> dict[str, Any] | None:
        try:
            more = extra.__get__(value)
        except AttributeError:  # the model was made without its fields
            return None
        fields: dict[str, Any] = state.__get__(value)
        return {**fields, **more} if more else fields

    return read


#: Functions that read the fields of a model, None for classes of anything else, by the id of the class.
_fields_readers: Final[dict[int, tuple[type, Callable[[object], dict[str, Any] | None] | None]]] = {}


def _items(value: Any, base: Any, limit: int) -> list[Any]:
    return list(islice(base.__iter__(value), limit))


def _tuple(value: Any, base: type, limit: int) -> object:
    items = tuple.__getitem__(value, slice(limit))
    names = _class_attribute(type(value), "_fields")
    if type(names) is tuple and len(names) == tuple.__len__(value):  # a named tuple
        return Pairs(zip(names, items, strict=False))
    return list(items)


def _bytes(value: Any, base: Any, limit: int) -> object:
    try:
        raw = value.tobytes() if base is memoryview else bytes(base.__getitem__(value, slice(None)))
    except ValueError:  # a memoryview that was released
        return opaque(value, base, limit)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = "\0"
    if _BINARY.search(text) is None:
        return text
    return {"base64": binascii.b2a_base64(raw, newline=False).decode(), "bytes": len(raw)}


def _zoned(moment: datetime.datetime | datetime.time) -> str:
    zone = moment.tzinfo
    if zone is None or _package(type(zone)) in _ZONES:
        return moment.isoformat()
    return f"{moment.replace(tzinfo=None).isoformat()}[{name_of(type(zone))}]"


def _path(value: Any, base: type, limit: int) -> str:
    flavour: Any = next(
        kind for kind in _mro(type(value)) if _package(kind) == "pathlib" and _is_genuine(kind)
    )
    parts = _get(base, "_raw_paths" if "_raw_paths" in _namespace(base) else "_parts", value)
    return str(flavour(*map(str.__str__, parts)))


def _numpy_array(value: Any, base: Any, limit: int) -> object:
    if type(value) is base and value.size <= MAX_ELEMENTS:
        return value.tolist()
    return {"shape": _get(base, "shape", value), "dtype": str(_get(base, "dtype", value))}


def _numpy_scalar(value: Any, base: Any, limit: int) -> object:
    number = base.tolist(value)
    return number if type(number) is not type(value) else str(number)  # Python has no long double


def _exception(value: BaseException, base: type, limit: int) -> dict[str, str]:
    return {"type": name_of(type(value)), "message": _message(value)}


def _message(error: BaseException) -> str:
    """Return ``str(error)`` if that runs only builtin code, else the texts among the arguments."""
    arguments = _get(BaseException, "args", error)
    members, author = [*arguments], None
    for base in reversed(_mro(type(error))):
        builtin = _module(base) == "builtins" and _is_genuine(base)
        for name, item in list(_namespace(base).items()):
            if builtin and type(item) is types.MemberDescriptorType:
                members.append(item.__get__(error))
            elif type(name) is str and name == "__str__":
                author = item if builtin else None
    if author and all(any(type(item) is kind for kind in _SCALARS) for item in members):
        return str(author(error))
    return ", ".join(str.__str__(item) for item in arguments if issubclass(type(item), str))


def _function(value: Any, base: type, limit: int) -> str:
    word, function = ("method", value.__func__) if base is types.MethodType else ("function", value)
    if type(function) is types.FunctionType:
        return f"<{word} {_dotted(function.__module__, function.__qualname__)}>"
    if type(function) is types.BuiltinFunctionType:
        return f"<{word} {_dotted(function.__module__, function.__name__)}>"
    return opaque(value, base, limit)


def _generator(value: Any, base: type, limit: int) -> str:
    frame = getattr(value, {"generator": "gi_frame", "coroutine": "cr_frame"}.get(base.__name__, "ag_frame"))
    module = None if frame is None else dict.get(frame.f_globals, "__name__")
    return f"<{base.__name__} {_dotted(module, value.__qualname__)}>"


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
        ((bytes, bytearray, memoryview), _bytes),
        ((dict,), lambda value, base, limit: Pairs(islice(dict.items(value), limit))),
        ((type({}.items()),), lambda value, base, limit: Pairs(_items(value, base, limit))),
        ((list, set, frozenset, range, collections.deque, type({}.keys()), type({}.values())), _items),
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
        ((enum.Enum,), lambda value, base, limit: _attributes(value).get("_value_")),
        ((uuid.UUID,), lambda value, base, limit: str(base(int=_get(base, "int", value)))),
        ((re.Pattern,), lambda value, base, limit: value.pattern),
        ((msgspec.Struct,), lambda value, base, limit: Pairs(_state(value).items())),
        ((BaseException,), _exception),
        ((type,), lambda value, base, limit: f"<class {name_of(value)}>"),
        (
            (types.ModuleType,),
            lambda value, base, limit: f"<module {str.__str__(_globals(value)['__name__'])}>",
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
        base(_get(base, "_numerator", x), _get(base, "_denominator", x))
    ),
    "numpy.generic": _numpy_scalar,
    "numpy.ndarray": _numpy_array,
    "pathlib.PurePath": _path,
    "pathlib._local.PurePath": _path,  # its home in Python 3.13
    "pydantic.main.BaseModel": _model,
    "pydantic.root_model.RootModel": lambda value, base, limit: _attributes(value).get("root"),
    "pydantic.types.Secret": lambda value, base, limit: REDACTED,
    "pydantic.types.SecretBytes": lambda value, base, limit: REDACTED,
    "pydantic.types.SecretStr": lambda value, base, limit: REDACTED,
}
