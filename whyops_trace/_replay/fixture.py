"""
A recording as a file that can be kept beside tests and read in a review.

It is JSON with one member a line. Of a request to a model only what an earlier one did not say is written, texts of
several lines are lists of lines, and what is long and comes more than once stands once, under its hash. So a result
that changes is a difference of some lines. A very long text, list or object is a file of its own in the folder beside
it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from whyops_trace._replay.recording import RecordedCall, Recording, mark_models
from whyops_trace._shapes import dict_of, list_of
from whyops_trace._version import __version__
from whyops_trace.exceptions import ReplayError

#: pytest shows a failure where the program is, without the frames of this module.
__tracebackhide__ = True

#: Version of the format; it rises when a member changes its meaning or is removed.
VERSION: Final = 1
#: The member that has the version, by which such a file is known.
_MARK: Final = "whyops-fixture"
#: The member that has the hash of the rest.
_HASH: Final = "sha256"
#: Characters of JSON from which on a value that comes again is written once.
_SHARED: Final = 120
#: Characters from which on a text is a file of its own, and a list or object by its JSON.
_LONG: Final = 20_000
#: Characters of JSON that a line of such a file holds, if they can be told apart.
_WIDTH: Final = 160
#: Names of such files: the hash of what is in them.
_PART: Final = re.compile(r"[0-9a-f]{12}\.(?:txt|json)")
#: Members of a call that stay in the fixture, however long: what is inside of them may be files.
_STAYING: Final = frozenset({"asked", "messages"})
_AGAIN, _LINES, _FILE, _PLAIN = "$same", "$text", "$file", "$plain"
_MARKS: Final = (_AGAIN, _LINES, _FILE, _PLAIN)
_KINDS: Final = ("tool", "llm", "embedding")
#: Types of the members of a call; an answer may be anything.
_TYPES: Final[dict[str, type]] = {
    **dict.fromkeys(("call", "in", "began", "ended"), int),
    **dict.fromkeys(("kind", "name", "outcome", "returned", "model", "requestId", "responseId"), str),
    **dict.fromkeys(("asked", "error", "refusal", "raw", "usage"), dict),
    **dict.fromkeys(("steps", "messages", "after"), list),
    **dict.fromkeys(("wraps", "captured", "redacted"), bool),
}

#: Attributes of a call under their names in the file, each left out where it has its usual value.
_MEMBERS: Final = {
    "outcome": "outcome",
    "returned": "returned",
    "error": "error",
    "refusal": "refusal",
    "answer": "answer",
    "raw": "raw",
    "usage": "usage",
    "model": "model",
    "provider": "provider",
    "requestId": "request_id",
    "responseId": "response_id",
    "wraps": "wraps",
    "captured": "is_captured",
    "redacted": "is_redacted",
}
_USUAL: Final = RecordedCall("tool", "", {}, outcome="ok")


def save_fixture(recording: Recording, path: Path) -> int:
    """
    Write a recording to a file, and what is very long in it to files in the folder beside it.

    Returns:
        The bytes of all.
    """
    files: dict[str, str] = {}
    text = write_fixture(recording, files)
    folder = _folder(path)
    for old in folder.glob("*"):
        if _PART.fullmatch(old.name) and old.name not in files:
            old.unlink()
    size = 0
    for place, content in [(path, text), *((folder / name, content) for name, content in files.items())]:
        place.parent.mkdir(parents=True, exist_ok=True)
        size += place.write_bytes(content.encode("utf-8", "replace"))
    return size


def _folder(path: Path) -> Path:
    """Return the folder of what is very long in a fixture."""
    return path.with_name(f"{path.stem}-texts")


def is_part(path: Path) -> bool:
    """Tell whether a file belongs to a fixture, which is beside its folder."""
    folder = path.parent
    return folder.name.endswith("-texts") and _PART.fullmatch(path.name) is not None


def write_fixture(recording: Recording, files: dict[str, str] | None = None) -> str:
    """
    Return a recording as the text of a fixture.

    Args:
        recording: The recording.
        files: Takes what is very long by the names of files; None to leave it in the fixture.
    """
    calls = _calls(recording)
    counts: Counter[str] = Counter()
    _count(calls, counts)
    writer = _Writer(counts, files)
    written = [writer.call(call) for call in calls]
    fixture: dict[str, Any] = {
        _MARK: VERSION,
        "writtenBy": f"whyops-trace {__version__}",
        "source": recording.source,
        "agent": recording.agent,
        _HASH: "",  # not the last one: without its line the rest is JSON still
        "calls": written,
        "same": writer.shared,
    }
    fixture[_HASH] = _hash(fixture)
    return json.dumps(fixture, indent=1, ensure_ascii=False) + "\n"


def read_fixture(path: Path) -> Recording:
    """
    Return the recording in a fixture.

    Raises:
        ReplayError: if it cannot be read: it is not there, no fixture, of another version, cut, or was edited.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors put a mark of the encoding before it
    except OSError as error:
        raise ReplayError(
            f"{path} cannot be read ({error.strerror}). Write it with `whyops-trace export TRACE --fixture {path}`."
        ) from None
    except UnicodeDecodeError as error:
        raise ReplayError(f"{path} is no fixture: it is no text in UTF-8.") from error
    try:
        fixture = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ReplayError(
            f"{path} is cut, or was edited so that it is no JSON any more ({error}). Take it from the version control, "
            "or export the trace again."
        ) from error
    _check(fixture, path)
    try:
        return _recording(fixture, _Reader(fixture["same"], _folder(path), checks=_HASH in fixture))
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ReplayError(
            f"{path} has something else than a fixture has ({type(error).__name__}: {error}). Export the trace again."
        ) from error


def _check(fixture: Any, path: Path) -> None:
    version = dict_of(fixture).get(_MARK)
    if version is None:
        raise ReplayError(
            f"{path} is no fixture. `whyops-trace export TRACE --fixture FILE` writes one; no other export can be "
            "replayed."
        )
    if version != VERSION:
        newer = isinstance(version, int) and version > VERSION
        advice = "install the version that wrote it" if newer else "export the trace again"
        raise ReplayError(
            f"{path} has version {version!r} of the format, written by {fixture.get('writtenBy')}; this is "
            f"whyops-trace {__version__}, which reads version {VERSION}: {advice}."
        )
    if _HASH in fixture and fixture[_HASH] != _hash(fixture):
        raise ReplayError(
            f"{path} was edited: its {_HASH} does not fit. If that is meant, delete the line with {_HASH!r}; else take "
            "it from the version control, or export the trace again."
        )


def _hash(fixture: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in fixture.items() if name != _HASH}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def _calls(recording: Recording) -> list[dict[str, Any]]:
    said: list[tuple[int, list[Any]]] = []
    calls = []
    for call in recording.calls:
        told: dict[str, Any] = {"call": call.number, "in": call.parent.number if call.parent else 0}
        told |= {"kind": call.kind, "name": call.name, "began": call.began, "ended": call.ended}
        if call.path:
            told["steps"] = list(call.path)
        asked = dict(call.asked)
        if "messages" in asked:
            messages = list_of(asked.pop("messages"))
            told["asked"] = asked
            number, common = _longest(said, messages)
            if common:
                told["after"] = [number, common]
            told["messages"] = messages[common:]
            said.append((call.number, messages))
        else:
            told["asked"] = asked
        for name, attribute in _MEMBERS.items():
            value = getattr(call, attribute)
            if value != getattr(_USUAL, attribute):
                told[name] = value
        calls.append(told)
    return calls


def _longest(said: list[tuple[int, list[Any]]], now: list[Any]) -> tuple[int, int]:
    """Return which earlier request has most messages in common with one at the beginning, and how many."""
    best = (0, 0)
    for number, earlier in reversed(said):
        common = _common(earlier, now)
        best = max(best, (number, common), key=lambda each: each[1])
        if common == len(earlier):  # it goes on with that one
            break
    return best


def _common(earlier: list[Any], now: list[Any]) -> int:
    """Return how many messages two requests have in common at their beginning."""
    pairs = enumerate(zip(earlier, now, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(earlier), len(now)))


def _count(value: Any, counts: Counter[str]) -> None:
    """Count the long values, with those inside of them."""
    if isinstance(value, (str, list, dict)):
        text = json.dumps(value, sort_keys=True)
        if len(text) <= _SHARED:
            return
        counts[text] += 1
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        for part in parts:
            _count(part, counts)


class _Writer:
    """
    Makes values as they are written.

    Attributes:
        shared: What is written once, by its hash.
    """

    def __init__(self, counts: Counter[str], files: dict[str, str] | None) -> None:
        self._counts, self._files = counts, files
        self.shared: dict[str, Any] = {}

    def call(self, call: dict[str, Any]) -> dict[str, Any]:
        """Return a call as it is written."""
        return {name: self.shortened(value, stays=name in _STAYING) for name, value in call.items()}

    def shortened(self, value: Any, *, stays: bool = False) -> Any:
        """Return a value as it is written, and add to *shared* what is written once; it is no file if it *stays*."""
        text = json.dumps(value, sort_keys=True) if isinstance(value, (str, list, dict)) else ""
        stays = stays or len(text) <= _LONG
        if self._counts[text] > 1:
            key = _digest(text)
            if key not in self.shared:
                self.shared[key] = None  # its place is before those of its parts
                self.shared[key] = self._inside(value, stays=stays)
            return {_AGAIN: key}
        return self._inside(value, stays=stays)

    def _inside(self, value: Any, *, stays: bool) -> Any:
        if isinstance(value, str):
            if self._files is not None and len(value) > _LONG:
                return self._filed(value, "txt")
            return {_LINES: value.split("\n")} if value.count("\n") > 1 else value
        if not isinstance(value, (list, dict)):
            return value
        may_move = self._files is not None and not stays
        # The content of a file does not hang on what else is in the fixture.
        parts = _Writer(Counter(), self._files) if may_move else self
        if isinstance(value, list):
            written: Any = [parts.shortened(item) for item in value]
        else:
            written = {name: parts.shortened(item) for name, item in value.items()}
            if len(value) == 1 and next(iter(value)) in _MARKS:
                written = {_PLAIN: written}
        if may_move and len(json.dumps(written)) > _LONG:
            return self._filed(_in_lines(written) + "\n", "json")
        return written

    def _filed(self, content: str, kind: str) -> dict[str, str]:
        """Make a file of a text, and return what stands for it."""
        name = f"{_digest(content)}.{kind}"
        if self._files is not None:
            self._files[name] = content
        return {_FILE: name}


def _in_lines(value: Any, indent: str = "") -> str:
    """Return a value as JSON in lines: a part is on one line if it is short, else its parts are."""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= _WIDTH or not isinstance(value, (list, dict)):
        return text
    inner = f"\n{indent} "
    if isinstance(value, list):
        return f"[{','.join(inner + _in_lines(item, indent + ' ') for item in value)}\n{indent}]"
    members = (
        f"{inner}{json.dumps(name, ensure_ascii=False)}: {_in_lines(item, indent + ' ')}"
        for name, item in value.items()
    )
    return f"{{{','.join(members)}\n{indent}}}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]


class _Reader:
    """
    Makes values as they were before they were written, from what is written once and from files.

    Args:
        same: What is written once, by its hash.
        folder: The folder of the files.
        checks: False to take files that were edited.
    """

    def __init__(self, same: dict[str, Any], folder: Path, *, checks: bool) -> None:
        self._same, self._folder, self._checks = same, folder, checks

    def grown(self, value: Any) -> Any:
        """Return a value as it was."""
        if isinstance(value, list):
            return [self.grown(item) for item in value]
        if not isinstance(value, dict):
            return value
        if set(value) == {_LINES}:
            return "\n".join(value[_LINES])
        if set(value) == {_AGAIN}:
            return self.grown(self._same[value[_AGAIN]])
        if set(value) == {_FILE}:
            name = value[_FILE]
            text = self._text(name)
            return self.grown(self._parsed(name, text)) if name.endswith(".json") else text
        inside = value[_PLAIN] if set(value) == {_PLAIN} else value
        return {name: self.grown(item) for name, item in inside.items()}

    def _text(self, name: str) -> str:
        path = self._folder / Path(name).name
        try:
            text = path.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            raise ReplayError(
                f"{path} cannot be read ({error}). It belongs to the recording beside it: take both from the version "
                "control, or export the trace again."
            ) from None
        if self._checks and _digest(text) != path.stem:
            raise ReplayError(
                f"{path} was edited: its name is the hash of what was in it. If that is meant, delete the line with "
                f"{_HASH!r} from the recording beside it; else take it from the version control, or export the trace "
                "again."
            )
        return text

    def _parsed(self, name: str, text: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ReplayError(
                f"{self._folder / name} was edited so that it is no JSON any more ({error}). Take it from the version "
                "control, or export the trace again."
            ) from error


def _recording(fixture: dict[str, Any], reader: _Reader) -> Recording:
    calls: dict[int, RecordedCall] = {}
    said: dict[int, list[Any]] = {}
    for written in fixture["calls"]:
        told = {name: reader.grown(value) for name, value in written.items()}
        _check_members(told)
        call = RecordedCall(told["kind"], told["name"], told["asked"], outcome="ok")
        call.number, call.path = told["call"], tuple(told.get("steps", ()))
        call.began, call.ended = told.get("began", -1), told["ended"]
        call.parent = calls[told["in"]] if told["in"] else None
        if "messages" in told:
            number, count = told.get("after", (0, 0))
            call.asked["messages"] = said[call.number] = [*said.get(number, [])[:count], *told["messages"]]
        for name, attribute in _MEMBERS.items():
            if name in told:
                setattr(call, attribute, told[name])
        calls[call.number] = call
    if not calls:
        raise ValueError("no calls")
    for call in calls.values():
        mark_models(call)
    return Recording(fixture["source"], fixture["agent"], [*calls.values()])


def _check_members(told: Mapping[str, Any]) -> None:
    """
    Check a call that may have been edited by hand.

    Raises:
        TypeError: if a member is of another type.
        ValueError: if its kind is none.
    """
    for name, value in told.items():
        if name in _TYPES and type(value) is not _TYPES[name]:
            raise TypeError(f"{name} of call {told.get('call')} is {value!r:.60}")
    if told["kind"] not in _KINDS:
        raise ValueError(f"a call of kind {told['kind']!r}")
