"""
Conversations: the turn that each turn continues, its new messages, and its edits of earlier ones.

Every request repeats the conversation so far. Earlier messages are kept as numbers, not as texts, so that a long
conversation takes memory only for its new messages.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import accumulate
from typing import Any, Final

from whyops_trace._reading.excerpt import value
from whyops_trace.story.messages import Prompt, fingerprint, likeness, read_message, tool_names
from whyops_trace.story.turns import Call, Message, PromptChange, Turn

#: Largest number of messages, between the common beginning and end of two requests, that are compared one by one.
_COMPARED: Final = 200
#: Number of latest turns that a new one is compared with first.
_RECENT: Final = 4
#: Largest number of lines of a diff that are kept.
_LINES: Final = 400


#: A number in the name of an agent or a step.
_NUMBER: Final = re.compile(r"\W*\d+")


@dataclass(slots=True)
class Sent:
    """
    The request of a turn.

    Attributes:
        turn: The turn.
        prompt: Prompt of the request. Its messages are dropped once the request is closed.
        scope: Id of the call that the turn ran in, 0 if there is none.
        likes: Likeness of each message, kept until a later turn continues this one.
        base: The turn that it continues, None if it begins a conversation.
        since: Number of messages that the conversation had before.
        chain: One number for the messages together, and for the answer too once it is there.
        offered: Fingerprint of the tools on offer.
        conversation: Number of the conversation that it belongs to.
        owner: Name of its agent. A number in it may count turns or agents, so the prompt stands for the number.
        closed: True once later turns may continue it.
    """

    turn: Turn
    prompt: Prompt
    scope: int
    likes: list[int] = field(default_factory=list)
    base: Turn | None = None
    since: int = 0
    chain: int = 0
    offered: int = 0
    conversation: int = 0
    owner: str = ""
    closed: bool = False


class Conversations:
    """
    The conversations of a trace.

    The messages of a turn begin with those of an earlier turn and the answer to them. The turn continues that earlier
    turn; the longest such beginning counts. If the messages of a conversation come back with some of them edited,
    removed or replaced, the turn continues the latest turn of that conversation, and the difference is reported.

    Each agent has conversations of its own. A turn that only continues those of other agents begins one, and changes
    nothing in the prompts of others.
    """

    def __init__(self) -> None:
        #: The latest request of a chain: of an agent by the system prompt, of an agent, and of anybody.
        self._ends: dict[tuple[int, str | None, str | None], Sent] = {}
        self._latest: dict[int, Sent] = {}
        self._recent: deque[Sent] = deque(maxlen=_RECENT)
        #: Number of the conversation, by the likeness of an answer or a result. Only one conversation can hold these.
        self._owners: dict[int, int] = {}
        self._askers: dict[str, Sent] = {}
        self._before: dict[int, Sent] = {}
        self._names: dict[str, str] = {}
        self._likeness: dict[int, int] = {}
        #: The messages that records share, each with its likeness, by their :func:`id`.
        self._seen: dict[int, tuple[object, int]] = {}
        self._messages: dict[int, list[Message]] = {}
        self._tools: dict[int, list[Any]] = {}
        self._last_system: str | None = None
        self._last_offered = 0
        self._count = 0

    def open(self, turn: Turn, prompt: Prompt, scope: int) -> Sent:
        """
        Add to a turn the news of its request.

        Args:
            turn: The turn. Its messages, its changes and the turn it continues are filled in.
            prompt: Prompt of its request.
            scope: Id of the call that it runs in, 0 if there is none.
        """
        offered = fingerprint(prompt.tools) if prompt.tools else 0
        tools = self._tools.setdefault(offered, prompt.tools)
        request = Sent(turn, prompt._replace(tools=tools), scope, offered=offered)
        request.likes = self._likes(prompt.messages)
        bare = _NUMBER.sub("", turn.agent)
        request.owner = turn.agent if bare == turn.agent else f"{bare}\n{prompt.system}"
        base, prefix = self._find(request)
        edited_from = self._find_edited(request, base, prefix)
        if edited_from is not None:
            prefix = self._tell_edits(request, edited_from)
            base = edited_from
        if base is None:
            base = self._by_call(request) or (self._before.get(scope) if prompt.alone else None)
        if base is not None and prompt.alone and not (prompt.system or prompt.tools):
            # A result recorded by itself does not say what else the request held.
            request.prompt = request.prompt._replace(system=base.prompt.system, tools=base.prompt.tools)
            request.offered = base.offered
        self._add_messages(request, base, prefix)
        self._add_prompt(request, base)
        return request

    def close(self, request: Sent) -> None:
        """
        Let later turns continue one that has an answer or failed.

        A turn recorded by hand is closed at its request, and once more when its answer is there.
        """
        turn = request.turn
        if not request.closed:
            latest = self._latest.get(request.conversation)
            if latest is not None:
                latest.likes = []
            self._latest[request.conversation] = request
            self._recent.append(request)
            self._end(request)
        if turn.answer or turn.calls:
            answer = Message("assistant", turn.answer, calls=turn.calls)
            like = likeness(None, [answer])
            self._messages.setdefault(like, [answer])
            self._owners[like] = request.conversation
            request.likes.append(like)
            request.chain = _link(request.chain, like)
            self._end(request)
        for one in request.likes[request.since :]:
            if one in self._owners:
                self._owners[one] = request.conversation
        for call in turn.calls:
            if call.id:
                self._names[call.id] = call.name
                self._askers[call.id] = request
        self._before[request.scope] = request
        request.prompt = request.prompt._replace(messages=[])
        request.closed = True

    def _end(self, request: Sent) -> None:
        """Let later turns whose messages begin with these continue this one."""
        if request.chain:
            for key in ((None, None), (request.owner, None), (request.owner, request.prompt.system)):
                self._ends[request.chain, *key] = request

    def _likes(self, messages: list[Any]) -> list[int]:
        """Return the likeness of each message. A message seen before is not read again."""
        seen = self._seen
        return [
            seen[id(message)][1] if id(message) in seen else self._likeness_of(message)
            for message in messages
        ]

    def _likeness_of(self, message: object) -> int:
        print_ = fingerprint(message)
        like = self._likeness.get(print_)
        if like is None:
            like = self._read_new(print_, message)
        self._seen[id(message)] = message, like
        return like

    def _read_new(self, print_: int, message: object) -> int:
        messages = read_message(message, self._names)
        like = self._likeness[print_] = likeness(message, messages)
        self._messages[like] = messages
        for one in messages:
            self._names.update((call.id, call.name) for call in one.calls if call.id)
            if one.role in ("assistant", "tool"):
                self._owners.setdefault(like, 0)
        return like

    def _find(self, request: Sent) -> tuple[Sent | None, int]:
        """Return the request whose messages are the longest beginning of these, and the number of those messages."""
        likes, system = request.likes, request.prompt.system
        # Most turns continue one of these, and comparing lists is fast.
        for base in reversed(self._recent):
            prefix = len(base.likes)
            is_alike = _is_same(base, request) and base.prompt.system == system
            if prefix and is_alike and likes[:prefix] == base.likes:
                request.chain = reduce(_link, likes[prefix:], base.chain)
                return base, prefix
        chain = list(accumulate(likes, _link, initial=0))
        request.chain = chain[-1]
        for owner in (request.owner, None):
            for prefix in range(len(likes), 0, -1):
                match = self._ends.get((chain[prefix], owner, system)) if owner is not None else None
                if match is None:
                    match = self._ends.get((chain[prefix], owner, None))
                    # The same question to another agent is a conversation of its own until there is an answer.
                    if match is not None and not any(like in self._owners for like in likes[:prefix]):
                        match = None
                if match is not None:
                    return match, prefix
        return None, 0

    def _find_edited(self, request: Sent, base: Sent | None, prefix: int) -> Sent | None:
        """Return the latest request of the conversation that these messages are an edited form of, None if of none."""
        if base is not None and self._latest.get(base.conversation) is base:
            return None
        counts = Counter(self._owners.get(like, 0) for like in request.likes[prefix:])
        del counts[0]
        if counts:
            match = self._latest.get(counts.most_common(1)[0][0])
            return None if match is base or not _is_same(match, request) else match
        if base is None or len(request.likes) == prefix or base.prompt.system != request.prompt.system:
            return None
        if not _is_same(base, request):
            return None
        latest = self._latest[base.conversation]
        answered = request.likes[prefix - 1] in self._owners or self._repeats(
            request.likes[prefix], base.turn
        )
        return None if answered or len(latest.likes) <= prefix + 1 else latest

    def _by_call(self, request: Sent) -> Sent | None:
        """Return the request that led to a call whose result is sent alone, None if earlier messages are sent too."""
        for like in request.likes:
            for message in self._messages[like]:
                if message.role == "assistant":
                    return None
                if message.call_id in self._askers:
                    return self._askers[message.call_id]
        return None

    def _add_messages(self, request: Sent, base: Sent | None, prefix: int) -> None:
        """Add the new messages to the turn."""
        turn = request.turn
        while (
            base is not None
            and prefix < len(request.likes)
            and self._repeats(request.likes[prefix], base.turn)
        ):
            prefix += 1
        turn.earlier = prefix
        turn.messages = [
            message for like in request.likes[prefix:] for message in self._with_tool_names(like)
        ]
        if base is not None:
            request.base = base.turn
        is_latest = (
            _is_same(base, request) and base is not None and self._latest.get(base.conversation) is base
        )
        if base is not None and is_latest:
            request.conversation, request.since = base.conversation, prefix
        else:
            self._count += 1
            request.conversation = self._count

    def _with_tool_names(self, like: int) -> list[Message]:
        """Return the messages of a likeness, with the names of tools filled in for results."""
        for message in self._messages[like]:
            message.name = message.name or self._names.get(message.call_id, "")
        return self._messages[like]

    def _repeats(self, like: int, turn: Turn) -> bool:
        """Return True if a message only repeats the answer of a turn, or a part of it."""
        if not (turn.answer or turn.calls):
            return False
        calls = {_call_key(call) for call in turn.calls}
        return all(
            message.role == "assistant"
            and message.text.strip() in ("", turn.answer.strip())
            and calls.issuperset(map(_call_key, message.calls))
            for message in self._messages[like]
        )

    def _add_prompt(self, request: Sent, base: Sent | None) -> None:
        """Add the system prompt and the tools to the turn if they are new, and their changes."""
        turn, system = request.turn, request.prompt.system
        tools = tool_names(request.prompt.tools)
        if base is None or not _is_same(base, request):
            turn.system = system if system != self._last_system else ""
            turn.offered = list(tools) if request.offered != self._last_offered else []
            turn.schemas = request.prompt.tools if turn.offered else []
        else:
            if base.prompt.system != system:
                turn.system = system
                turn.changes.insert(0, _system_change(base.prompt.system, system))
            if base.offered != request.offered:
                turn.offered, turn.schemas = list(tools), request.prompt.tools
                turn.changes.append(_tools_change(tool_names(base.prompt.tools), tools))
        self._last_system, self._last_offered = system, request.offered

    def _tell_edits(self, request: Sent, latest: Sent) -> int:
        """Add to the turn its edits of the messages of *latest*; return the number of messages before the new ones."""
        before, after = latest.likes, request.likes
        blocks = _matching(before, after)
        edits: list[str] = []
        diff: list[str] = []
        old = new = prefix = 0
        for start_old, start_new, size in blocks:
            last = start_new == len(after) and not size
            removed, added = before[old:start_old], after[new:start_new]
            if (
                removed == before[-1:]
                and old == len(before) - 1
                and (latest.turn.answer or latest.turn.calls)
            ):
                removed = []  # the answer, in another form or not yet repeated
            if removed or (added and not last):
                edits.append(_edit(old, len(removed), len(added), len(before), new))
                diff += self._diff(removed, added)
            prefix = new
            old, new = start_old + size, start_new + size
        if edits:
            summary = ", ".join(edits[:3]) + (f", and {len(edits) - 3} more edits" if len(edits) > 3 else "")
            request.turn.changes.append(PromptChange("history", summary, diff[:_LINES]))
        return prefix

    def _diff(self, removed: Iterable[int], added: Iterable[int]) -> list[str]:
        return _lines(*("\n".join(map(_message_text, self._texts(likes))) for likes in (removed, added)))

    def _texts(self, likes: Iterable[int]) -> list[Message]:
        return [message for like in likes for message in self._messages.get(like, [])]


def _is_same(one: Sent | None, other: Sent) -> bool:
    """Return True if two requests are by the same agent."""
    return one is not None and one.owner == other.owner


def _link(chain: int, like: int) -> int:
    return hash((chain, like))


def _call_key(call: Call) -> tuple[str, int]:
    return call.name, fingerprint(call.arguments)


def _matching(before: Sequence[int], after: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return the pieces common to two requests as (start, start, length), in order, ended by an empty one."""
    head = 0
    while head < min(len(before), len(after)) and before[head] == after[head]:
        head += 1
    last = {like: place for place, like in enumerate(after[head:], head)}
    old = next((place for place in reversed(range(head, len(before))) if before[place] in last), -1)
    new, size = (last[before[old]], 1) if old >= 0 else (len(after), 0)
    while size and min(old, new) > head and before[old - 1] == after[new - 1]:
        old, new, size = old - 1, new - 1, size + 1
    end = [(old, new, size)] if size else []
    old = old if size else len(before)
    middle = before[head : min(old, head + _COMPARED)], after[head : min(new, head + _COMPARED)]
    matcher = difflib.SequenceMatcher(None, *middle, autojunk=False)
    blocks = [(block.a + head, block.b + head, block.size) for block in matcher.get_matching_blocks()[:-1]]
    return [(0, 0, head), *blocks, *end, (len(before), len(after), 0)]


def _edit(old: int, removed: int, added: int, count: int, new: int) -> str:
    """Return the edit of a piece of the messages, in words."""
    if not removed:
        return f"{_messages(added)} inserted before message {new + 1}"
    if not added:
        which = f"message {old + 1}" if removed == 1 else f"messages {old + 1} to {old + removed}"
        return f"{which} of {count} {'was' if removed == 1 else 'were'} removed"
    if removed == added == 1:
        return f"message {old + 1} of {count} was edited"
    return f"{_messages(removed)} replaced by {added}"


def _messages(count: int) -> str:
    return "1 message was" if count == 1 else f"{count} messages were"


def _message_text(message: Message) -> str:
    """Return a message as text, for a diff."""
    calls = [f"{call.name}({value(call.arguments)})" for call in message.calls]
    return "\n".join(filter(None, [f"{message.role}: {message.text}", *calls, message.other]))


def _system_change(before: str, after: str) -> PromptChange:
    verb = "edited" if before and after else "removed" if before else "added"
    return PromptChange("system", f"the system prompt was {verb}", _lines(before, after))


def _tools_change(before: dict[str, object], after: dict[str, object]) -> PromptChange:
    """Return the change of the tools on offer."""
    parts, diff = [], []
    for verb, names in (
        ("added", [name for name in after if name not in before]),
        ("removed", [name for name in before if name not in after]),
        ("changed", [name for name in after if name in before and value(before[name]) != value(after[name])]),
    ):
        if names:
            listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            parts.append(f"{listed} {'was' if len(names) == 1 else 'were'} {verb}")
            for name in names:
                diff += [f"-{value(before[name])}"] if name in before else []
                diff += [f"+{value(after[name])}"] if name in after else []
    return PromptChange("tools", ", ".join(parts) or "their order changed", diff[:_LINES])


def _lines(before: str, after: str) -> list[str]:
    """Return the lines of a unified diff, without its header."""
    old, new = before.splitlines()[: 10 * _LINES], after.splitlines()[: 10 * _LINES]
    return [line.rstrip("\n") for line in difflib.unified_diff(old, new, lineterm="", n=2)][2:]
