"""
Which turn of a model goes on from which, what it adds, and what it changes in what was sent before.

Every request repeats the conversation so far. Of what was sent numbers are kept, not texts, so that a long
conversation takes the memory of what is new in it.
"""

from __future__ import annotations

import difflib
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import accumulate
from typing import Any, Final

from whyops_trace._reading.excerpt import value
from whyops_trace.story.messages import Prompt, fingerprint, fingerprints, likeness, read_message, tool_names
from whyops_trace.story.turns import Call, Message, PromptChange, Turn

#: Messages between the common beginning and end of two requests that are compared one by one.
_COMPARED: Final = 200
#: Turns that a new one is compared with before all others.
_RECENT: Final = 4
#: Lines of a diff that are kept.
_LINES: Final = 400


@dataclass(slots=True)
class Sent:
    """
    What a turn sent.

    Attributes:
        turn: The turn.
        prompt: Its request; without the messages once it is closed.
        scope: The call that it ran in.
        likes: The likeness of each message, as long as no turn goes on from it.
        base: The turn that it goes on from, None if it begins a conversation.
        since: How many of them the conversation had before.
        chain: The number that all of them have together, with the answer once it is there.
        offered: The fingerprint of the tools on offer.
        conversation: The number of the conversation that it belongs to.
        closed: Whether later turns may go on from it.
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
    closed: bool = False


class Conversations:
    """
    The conversations of a trace.

    A turn goes on from the earlier one whose messages, with the answer to them, its own begin with; the longest such
    beginning counts. Where the messages of a conversation come back with some of them edited, removed or replaced,
    the turn goes on from the latest of that conversation, and the difference is told.
    """

    def __init__(self) -> None:
        #: The latest turn whose messages make up a chain, by the chain, and by the chain and the system prompt.
        self._ends: dict[tuple[int, str | None], Sent] = {}
        self._latest: dict[int, Sent] = {}
        self._recent: deque[Sent] = deque(maxlen=_RECENT)
        #: What only one conversation can hold, answers and results: its number, by their likeness.
        self._owners: dict[int, int] = {}
        self._askers: dict[str, Sent] = {}
        self._before: dict[int, Sent] = {}
        self._names: dict[str, str] = {}
        self._likeness: dict[int, int] = {}
        self._read: dict[int, list[Message]] = {}
        self._tools: dict[int, list[Any]] = {}
        self._told: str | None = None
        self._offered = 0
        self._count = 0

    def open(self, turn: Turn, prompt: Prompt, scope: int) -> Sent:
        """
        Tell a turn what is new in its request.

        Args:
            turn: The turn, which gets its messages, and what it goes on from and changed.
            prompt: What it sent.
            scope: The call that it runs in.
        """
        offered = fingerprint(prompt.tools) if prompt.tools else 0
        tools = self._tools.setdefault(offered, prompt.tools)
        sent = Sent(turn, prompt._replace(tools=tools), scope, offered=offered)
        sent.likes = self._likes(prompt.messages)
        base, kept = self._find(sent)
        edited = self._edited(sent, base, kept)
        if edited is not None:
            kept = self._tell_edits(sent, edited)
            base = edited
        if base is None:
            base = self._by_call(sent) or (self._before.get(scope) if prompt.alone else None)
        if base is not None and prompt.alone and not (prompt.system or prompt.tools):
            # A result that was recorded by itself tells nothing of what else was sent.
            sent.prompt = sent.prompt._replace(system=base.prompt.system, tools=base.prompt.tools)
            sent.offered = base.offered
        self._add_messages(sent, base, kept)
        self._add_prompt(sent, base)
        return sent

    def close(self, sent: Sent) -> None:
        """
        Let later turns go on from one that was answered, or failed.

        A turn recorded by hand is closed as soon as it asks, and once more when its answer is there.
        """
        turn = sent.turn
        if not sent.closed:
            latest = self._latest.get(sent.conversation)
            if latest is not None:
                latest.likes = []
            self._latest[sent.conversation] = sent
            self._recent.append(sent)
            self._end(sent)
        if turn.answer or turn.calls:
            answer = Message("assistant", turn.answer, calls=turn.calls)
            like = likeness(None, [answer])
            self._read.setdefault(like, [answer])
            self._owners[like] = sent.conversation
            sent.likes.append(like)
            sent.chain = _link(sent.chain, like)
            self._end(sent)
        for one in sent.likes[sent.since :]:
            if one in self._owners:
                self._owners[one] = sent.conversation
        for call in turn.calls:
            if call.id:
                self._names[call.id] = call.name
                self._askers[call.id] = sent
        self._before[sent.scope] = sent
        sent.prompt = sent.prompt._replace(messages=[])
        sent.closed = True

    def _end(self, sent: Sent) -> None:
        """Let turns go on from one whose messages begin with these."""
        if sent.chain:
            self._ends[sent.chain, None] = self._ends[sent.chain, sent.prompt.system] = sent

    def _likes(self, messages: list[Any]) -> list[int]:
        """Return the likeness of each message; one that was sent before is not read again."""
        known = self._likeness
        prints = fingerprints(messages)
        return [
            known[print_] if print_ in known else self._read_new(print_, message)
            for print_, message in zip(prints, messages, strict=True)
        ]

    def _read_new(self, print_: int, message: object) -> int:
        read = read_message(message, self._names)
        like = self._likeness[print_] = likeness(message, read)
        self._read[like] = read
        for one in read:
            self._names.update((call.id, call.name) for call in one.calls if call.id)
            if one.role in ("assistant", "tool"):
                self._owners.setdefault(like, 0)
        return like

    def _find(self, sent: Sent) -> tuple[Sent | None, int]:
        """Return the turn whose messages are the longest beginning of these, and how many they are."""
        likes, system = sent.likes, sent.prompt.system
        for base in reversed(
            self._recent
        ):  # most turns go on from one of these, and lists are compared quickly
            kept = len(base.likes)
            if kept and base.prompt.system == system and likes[:kept] == base.likes:
                sent.chain = reduce(_link, likes[kept:], base.chain)
                return base, kept
        chain = list(accumulate(likes, _link, initial=0))
        sent.chain = chain[-1]
        for kept in range(len(likes), 0, -1):
            found = self._ends.get((chain[kept], system))
            if found is None:
                found = self._ends.get((chain[kept], None))
                # The same question to another agent is a conversation of its own, until somebody answered.
                if found is not None and not any(like in self._owners for like in likes[:kept]):
                    found = None
            if found is not None:
                return found, kept
        return None, 0

    def _edited(self, sent: Sent, base: Sent | None, kept: int) -> Sent | None:
        """Return the latest turn of the conversation that these messages are an edited form of, if they are one."""
        if base is not None and self._latest.get(base.conversation) is base:
            return None
        shared = Counter(self._owners.get(like, 0) for like in sent.likes[kept:])
        del shared[0]
        if shared:
            found = self._latest.get(shared.most_common(1)[0][0])
            return None if found is base else found
        if base is None or len(sent.likes) == kept or base.prompt.system != sent.prompt.system:
            return None
        latest = self._latest[base.conversation]
        answered = sent.likes[kept - 1] in self._owners or self._repeats(sent.likes[kept], base.turn)
        return None if answered or len(latest.likes) <= kept + 1 else latest

    def _by_call(self, sent: Sent) -> Sent | None:
        """Return the turn that asked for a call whose result is sent, without what was said before."""
        for like in sent.likes:
            for message in self._read[like]:
                if message.role == "assistant":
                    return None
                if message.call_id in self._askers:
                    return self._askers[message.call_id]
        return None

    def _add_messages(self, sent: Sent, base: Sent | None, kept: int) -> None:
        """Tell the turn which messages are new."""
        turn = sent.turn
        while base is not None and kept < len(sent.likes) and self._repeats(sent.likes[kept], base.turn):
            kept += 1
        turn.earlier = kept
        turn.messages = [message for like in sent.likes[kept:] for message in self._named(like)]
        if base is not None:
            sent.base = base.turn
        on = base is not None and self._latest.get(base.conversation) is base
        if base is not None and on:
            sent.conversation, sent.since = base.conversation, kept
        else:
            self._count += 1
            sent.conversation = self._count

    def _named(self, like: int) -> list[Message]:
        """Return the messages of a likeness; a result gets the name of its tool."""
        for message in self._read[like]:
            message.name = message.name or self._names.get(message.call_id, "")
        return self._read[like]

    def _repeats(self, like: int, turn: Turn) -> bool:
        """Whether a message only repeats the answer of a turn, or a part of it."""
        if not (turn.answer or turn.calls):
            return False
        asked = {_call_key(call) for call in turn.calls}
        return all(
            message.role == "assistant"
            and message.text.strip() in ("", turn.answer.strip())
            and asked.issuperset(map(_call_key, message.calls))
            for message in self._read[like]
        )

    def _add_prompt(self, sent: Sent, base: Sent | None) -> None:
        """Tell the turn its system prompt and tools, if they were not told before, and how they changed."""
        turn, system = sent.turn, sent.prompt.system
        tools = tool_names(sent.prompt.tools)
        if base is None:
            turn.system = system if system != self._told else ""
            turn.offered = list(tools) if sent.offered != self._offered else []
        else:
            if base.prompt.system != system:
                turn.system = system
                turn.changes.insert(0, _system_change(base.prompt.system, system))
            if base.offered != sent.offered:
                turn.offered = list(tools)
                turn.changes.append(_tools_change(tool_names(base.prompt.tools), tools))
        self._told, self._offered = system, sent.offered

    def _tell_edits(self, sent: Sent, latest: Sent) -> int:
        """Tell the turn what became of the messages of *latest*; return how many stand before the new ones."""
        before, after = latest.likes, sent.likes
        blocks = _matching(before, after)
        said: list[str] = []
        diff: list[str] = []
        old = new = kept = 0
        for start_old, start_new, size in blocks:
            last = start_new == len(after) and not size
            gone, come = before[old:start_old], after[new:start_new]
            if gone == before[-1:] and old == len(before) - 1 and (latest.turn.answer or latest.turn.calls):
                gone = []  # the answer, in another form or not yet repeated
            if gone or (come and not last):
                said.append(_edit(old, len(gone), len(come), len(before), new))
                diff += self._diff(gone, come)
            kept = new
            old, new = start_old + size, start_new + size
        if said:
            summary = ", ".join(said[:3]) + (f", and {len(said) - 3} more edits" if len(said) > 3 else "")
            sent.turn.changes.append(PromptChange("history", summary, diff[:_LINES]))
        return kept

    def _diff(self, gone: Iterable[int], come: Iterable[int]) -> list[str]:
        return _lines(*("\n".join(map(_shown, self._texts(likes))) for likes in (gone, come)))

    def _texts(self, likes: Iterable[int]) -> list[Message]:
        return [message for like in likes for message in self._read.get(like, [])]


def _link(chain: int, like: int) -> int:
    return hash((chain, like))


def _call_key(call: Call) -> tuple[str, int]:
    return call.name, fingerprint(call.arguments)


def _matching(before: Sequence[int], after: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return the pieces that two requests have in common, in order, ended by an empty one: starts and length."""
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


def _edit(old: int, gone: int, come: int, count: int, new: int) -> str:
    """Return what was done to a piece of the messages, in words."""
    if not gone:
        return f"{_messages(come)} inserted before message {new + 1}"
    if not come:
        which = f"message {old + 1}" if gone == 1 else f"messages {old + 1} to {old + gone}"
        return f"{which} of {count} {'was' if gone == 1 else 'were'} removed"
    if gone == come == 1:
        return f"message {old + 1} of {count} was edited"
    return f"{_messages(gone)} replaced by {come}"


def _messages(count: int) -> str:
    return "1 message was" if count == 1 else f"{count} messages were"


def _shown(message: Message) -> str:
    """Return a message as text, for a diff."""
    calls = [f"{call.name}({value(call.arguments)})" for call in message.calls]
    return "\n".join(filter(None, [f"{message.role}: {message.text}", *calls, message.other]))


def _system_change(before: str, after: str) -> PromptChange:
    done = "edited" if before and after else "removed" if before else "added"
    return PromptChange("system", f"the system prompt was {done}", _lines(before, after))


def _tools_change(before: dict[str, object], after: dict[str, object]) -> PromptChange:
    """Return how the tools on offer changed."""
    said, diff = [], []
    for done, names in (
        ("added", [name for name in after if name not in before]),
        ("removed", [name for name in before if name not in after]),
        ("changed", [name for name in after if name in before and value(before[name]) != value(after[name])]),
    ):
        if names:
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            said.append(f"{shown} {'was' if len(names) == 1 else 'were'} {done}")
            for name in names:
                diff += [f"-{value(before[name])}"] if name in before else []
                diff += [f"+{value(after[name])}"] if name in after else []
    return PromptChange("tools", ", ".join(said) or "their order changed", diff[:_LINES])


def _lines(before: str, after: str) -> list[str]:
    """Return the lines of a unified diff, without its header."""
    old, new = before.splitlines()[: 10 * _LINES], after.splitlines()[: 10 * _LINES]
    return [line.rstrip("\n") for line in difflib.unified_diff(old, new, lineterm="", n=2)][2:]
