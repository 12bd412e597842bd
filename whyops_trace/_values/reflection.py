"""
An object, read below its class: no code of the class runs.

The descriptors of CPython's own types read what no class or metaclass can override.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

REDACTED: Final = "[redacted]"
TOO_MANY: Final = "[too many items]"
#: The key of :data:`TOO_MANY` in an object that was cut short.
REST: Final = "..."

#: Function that returns one level of an object as simpler values: a JSON scalar, a list or :class:`Pairs` of values to
#: be mended, or another object in its place. It is called with the object, the class of its MRO that the reader is
#: for, and the largest number of items to return.
Reader: TypeAlias = Callable[[Any, Any, int], object]


class Pairs(list[tuple[Any, Any]]):
    """Entries of a mapping, not yet mended. A dict would hash and compare the keys."""


# These descriptors are CPython's own. Their results need no attribute lookup, which a class or metaclass could
# override.

mro_of: Final[Callable[[type], tuple[type, ...]]] = vars(type)["__mro__"].__get__
namespace_of: Final[Callable[[type], Mapping[str, Any]]] = vars(type)["__dict__"].__get__
globals_of: Final[Callable[[object], dict[str, Any]]] = vars(types.ModuleType)["__dict__"].__get__

#: The docstring of the ``__dict__`` descriptor that every class statement makes. Proxies written in C have another
#: descriptor, which answers for the object behind them.
_GENUINE: Final = vars(type("_", (), {}))["__dict__"].__doc__
#: Modules whose names add nothing to the name of a class.
_OMITTED: Final = frozenset({"builtins", "__main__", "_io", "_thread"})


def read(base: type, name: str, value: object) -> Any:
    """Return the attribute that the descriptor *name* of a class of the value's MRO reads from the value."""
    return namespace_of(base)[name].__get__(value)


def module_of(kind: type) -> str:
    """Return the name of the module of a class."""
    try:
        module = read(type, "__module__", kind)
    except AttributeError:  # the class was made without the name of a module
        return "builtins"
    return module if type(module) is str else "builtins"


def qualname_of(kind: type) -> str:
    """Return the name of a class within its module."""
    return str.__str__(read(type, "__qualname__", kind))


def dotted(module: object, name: str) -> str:
    """Return a name with the module before it, unless that adds nothing."""
    name = str.__str__(name)
    return name if type(module) is not str or module in _OMITTED else f"{module}.{name}"


def name_of(kind: type) -> str:
    """Return the name of a class with its module."""
    return dotted(module_of(kind), qualname_of(kind))


def package_of(kind: type) -> str:
    """Return the name of the package of a class."""
    return module_of(kind).partition(".")[0]


def is_genuine(kind: type) -> bool:
    """Return True if a class is the one of its name in its module, and not a namesake."""
    module = sys.modules.get(module_of(kind))
    return issubclass(type(module), types.ModuleType) and globals_of(module).get(qualname_of(kind)) is kind


def class_attribute(kind: type, name: str) -> Any:
    """Return the raw attribute of a name in the nearest class of the MRO that has it."""
    return next((namespace_of(base)[name] for base in mro_of(kind) if name in namespace_of(base)), None)


def attributes_of(value: object) -> dict[str, Any]:
    """Return the instance ``__dict__`` of an object, an empty dict if it has no genuine one."""
    descriptor = class_attribute(type(value), "__dict__")
    if not is_genuine_dict(descriptor):
        return {}
    return {name: item for name, item in list(dict.items(descriptor.__get__(value))) if type(name) is str}


def is_genuine_dict(descriptor: Any) -> bool:
    """Return True if a class's ``__dict__`` descriptor reads the instance's own."""
    kind = type(descriptor)
    return kind is types.MemberDescriptorType or (
        kind is types.GetSetDescriptorType and descriptor.__doc__ == _GENUINE
    )


def state_of(value: object) -> dict[str, Any]:
    """Return the attributes of an object, in slots and in its ``__dict__``."""
    state: dict[str, Any] = {}
    for base in reversed(mro_of(type(value))):
        slots = list(namespace_of(base).items()) if "__slots__" in namespace_of(base) else []
        for name, slot in slots:
            if type(slot) is types.MemberDescriptorType and type(name) is str:
                try:
                    state[name] = slot.__get__(value)
                except (AttributeError, TypeError):  # empty, or a slot of another class
                    continue
    return state | attributes_of(value)


def opaque(value: object, base: type, limit: int) -> str:
    """Return only the name of an object's class; a :data:`Reader`."""
    return f"<{name_of(type(value))}>"
