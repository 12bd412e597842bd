"""The result or exception of a function, made again from what was recorded of it."""

from __future__ import annotations

import base64
import re
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, Final

import msgspec

#: Texts that stand for what was not recorded.
_CUT: Final = re.compile(
    r" \.\.\. \[cut [\d,]+ of [\d,]+ (?:characters|bytes)\] \.\.\. |\[cut [\d,]+ items?\]"
)
_STANDS_IN: Final = re.compile(
    r"\[(?:circular|too deep|too many items)\]"
    r"|<(?:(?:class|function|method|module|generator|coroutine|async_generator) )?[A-Za-z_]\w*(?:\.[\w<>]+)+>"
)
#: Numbers that are recorded as text: integers beyond 2^53, and floats that are not finite.
_NUMBER: Final = re.compile(r"-?\d{16,}|NaN|-?Infinity")
#: Types that JSON holds as they are.
_PLAIN: Final = frozenset({Any, object, None, type(None), bool, int, float, str, dict, list})
_MAPPINGS: Final = (dict, Mapping, typing.Mapping)


class LostError(Exception):
    """A recorded value does not hold what the call returned. The message says what to do."""


def check_whole(value: Any, path: str = "result") -> None:
    """
    Check that a recorded value has no part that was cut or only named.

    Raises:
        LostError: if it has.
    """
    if isinstance(value, str):
        if cut := _CUT.search(value):
            raise LostError(
                f"{path} was cut ({cut[0].strip(' .')}); record it again with a larger max_event_bytes"
            )
        if _STANDS_IN.fullmatch(value):
            raise LostError(
                f"{path} was recorded only as {value}; return plain data, or answer it with swap="
            )
    elif isinstance(value, list):
        for place, item in enumerate(value):
            check_whole(item, f"{path}[{place}]")
    elif isinstance(value, dict):
        if "shape" in value and ("dtype" in value or "dtypes" in value):
            raise LostError(
                f"{path} is a large array, of which only the head was recorded; answer it with swap="
            )
        if set(value) == {"mediaType", "bytes", "sha256"}:
            raise LostError(f"{path} is a file, of which only the hash was recorded; answer it with swap=")
        for name, item in value.items():
            check_whole(item, f"{path}.{name}")


def annotation_of(function: Any) -> Any:
    """Return the annotation of what a callable returns, None if it has none that can be read."""
    try:
        return typing.get_type_hints(getattr(function, "__func__", function)).get("return")
    except Exception:  # noqa: BLE001 - names that exist only for type checkers
        return None


def made_again(value: Any, returned: str, annotation: Any, home: str = "") -> Any:
    """
    Return a result as the program had it.

    Args:
        value: What was recorded of it.
        returned: Name of its class, "" if it was JSON.
        annotation: What the function is annotated to return, None if it is not.
        home: Name of the module of the function.

    Raises:
        LostError: if it cannot be made again.
    """
    if not returned:
        return _numbered(
            _converted(value, annotation) if isinstance(value, (list, dict)) else value, annotation
        )
    if returned in ("bytes", "bytearray", "memoryview"):
        raw = base64.b64decode(value["base64"]) if isinstance(value, dict) else value.encode()
        return bytearray(raw) if returned == "bytearray" else raw
    if returned == "dict":
        return value
    if returned.startswith("numpy."):
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, (list, int, float, bool)):
            return numpy.array(value) if isinstance(value, list) else getattr(numpy, returned[6:])(value)
    kind = class_named(returned, home)
    if kind is None:
        raise LostError(
            f"the class {returned} of the result is not loaded; import its module, or answer it with swap="
        )
    if _covers(annotation, kind):
        kind = annotation
    elif kind in (tuple, set, frozenset, complex):
        return kind(value)  # its parts are plain as well
    without_type = (
        {name: part for name, part in value.items() if name != "$type"} if isinstance(value, dict) else value
    )
    return _as(kind, without_type)


def class_named(name: str, home: str = "") -> Any:
    """
    Return a class by its full name, None if it is not loaded. Nothing is imported for it.

    Args:
        name: The name. That of a class of the program that was run has no module.
        home: Name of the module of the function, which was that program if it is not now.
    """
    if "<locals>" in name:
        return _local(name, home)
    module, _, rest = name.rpartition(".")
    parts = [rest]
    while module or len(parts) == 1:
        names = [module] if module else ["builtins", "__main__", home]
        for place in map(sys.modules.get, names):
            found: Any = place
            for part in parts:
                found = vars(found).get(part) if isinstance(found, (types.ModuleType, type)) else None
            if isinstance(found, type):
                return found
        if not module:
            break
        module, _, rest = module.rpartition(".")
        parts.insert(0, rest)
    return None


def _local(name: str, home: str) -> Any:
    """Return the newest class of a name that a function made, None if there is none."""
    names, waiting, found = {name, f"__main__.{name}", f"{home}.{name}"}, [object], None
    seen: set[type] = set()
    while waiting:
        kind = waiting.pop(0)
        if kind not in seen:
            seen.add(kind)
            waiting += type.__subclasses__(kind)
            found = kind if f"{kind.__module__}.{kind.__qualname__}" in names else found
    return found


def _covers(annotation: Any, kind: type) -> bool:
    """Tell whether an annotation says of what class a value is, and may say more."""
    origin = typing.get_origin(annotation) or annotation
    if origin in (typing.Union, types.UnionType):
        return any(_covers(each, kind) for each in typing.get_args(annotation))
    return origin is kind and bool(typing.get_args(annotation))


def _converted(value: Any, annotation: Any) -> Any:
    """Return a list or dict with its parts as they are annotated."""
    if not _is_plain(annotation):
        return _as(annotation, value)
    if name := _object_in(value):
        raise LostError(
            f"it holds an object of {name}; annotate what the function returns, or answer it with swap="
        )
    return value


def _numbered(value: Any, annotation: Any) -> Any:
    """Return a value with the numbers that JSON has only as text: where a number is annotated, and no text."""
    parts = typing.get_args(annotation)
    if isinstance(value, list) and parts:
        return [_numbered(item, parts[0]) for item in value]
    if isinstance(value, dict) and len(parts) == 2:
        return {name: _numbered(item, parts[1]) for name, item in value.items()}
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        kinds = parts or (annotation,)
        kind = int if value.lstrip("-").isdigit() else float
        return kind(value) if kind in kinds and str not in kinds else value
    return value


def _object_in(value: Any) -> str:
    """Return the class of the first object in a value that was recorded by its attributes, "" if there is none."""
    if isinstance(value, dict) and isinstance(value.get("$type"), str):
        return str(value["$type"])
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next(filter(None, map(_object_in, parts)), "")


def _is_plain(annotation: Any) -> bool:
    """Tell whether what is annotated is JSON as it is."""
    if isinstance(annotation, str) or annotation in _PLAIN or isinstance(annotation, typing.TypeVar):
        return True
    if typing.is_typeddict(annotation):
        return all(_is_plain(each) for each in typing.get_type_hints(annotation).values())
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return True
    if (
        origin in (typing.Union, types.UnionType, list, typing.Annotated)
        or getattr(origin, "__module__", "") == "collections.abc"
    ):
        return all(_is_plain(each) for each in parts)
    if origin in _MAPPINGS or annotation in _MAPPINGS:
        return all(_is_plain(each) for each in parts)
    return False


def _as(kind: Any, value: Any) -> Any:
    """
    Return a recorded value as a type: by pydantic where it is installed, else by msgspec.

    Raises:
        LostError: if neither can.
    """
    failures: list[str] = []
    for convert in (_by_construction, _by_pydantic, _by_msgspec):
        try:
            return convert(kind, value)
        except Exception as error:  # noqa: BLE001 - of the user's validators
            failures.append(str(error).partition("\n")[0])
    said = next((each for each in reversed(failures) if each), "")
    raise LostError(
        f"the result cannot be made a {getattr(kind, '__name__', kind)} again ({said:.200}); correct the annotation of "
        "what the function returns, or answer it with swap="
    )


def _by_construction(kind: Any, value: Any) -> Any:
    """Make an object of a provider's package, which takes answers as they come."""
    bases = [base.__module__.partition(".")[0] for base in kind.__mro__]
    if not isinstance(value, dict) or not {"openai", "anthropic"} & set(bases):
        raise TypeError
    return sys.modules[f"{bases[0]}._models"].construct_type(type_=kind, value=value)


def _by_pydantic(kind: Any, value: Any) -> Any:
    pydantic = sys.modules.get("pydantic")
    if pydantic is None:
        raise TypeError
    return pydantic.TypeAdapter(kind).validate_python(value, by_name=True, by_alias=True)


def _by_msgspec(kind: Any, value: Any) -> Any:
    return msgspec.convert(value, kind, strict=False)
