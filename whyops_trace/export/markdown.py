"""A trace as Markdown within a number of tokens, for a model or a person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from whyops_trace._models.stops import stop_of
from whyops_trace._reading.excerpt import clean, dollars, duration, elapsed, excerpt, value
from whyops_trace._reading.nodes import Node
from whyops_trace._shapes import parsed
from whyops_trace.analysis import Finding
from whyops_trace.export.shortening import Part, Piece, fitted, inline, lines, shortened
from whyops_trace.store import Score, TraceSummary
from whyops_trace.story import Call, Message, Section, Story, ToolUse, Turn

#: Characters of a token, by estimate.
CHARACTERS: Final = 4
#: Largest number of characters of a one-line text that is written on the line of its title.
_INLINE: Final = 160
#: Largest number of lines of each list at the top.
_LISTED: Final = 12
#: Largest number of characters of an id, a role or the name of an agent.
_NAME: Final = 200
#: Largest number of characters of an error.
_ERROR: Final = 2_000


def markdown(summary: TraceSummary, story: Story, findings: Sequence[Finding], max_tokens: int) -> str:
    """
    Return a trace as Markdown.

    Args:
        summary: The summary of the trace.
        story: The story of the trace.
        findings: The findings in the trace.
        max_tokens: Largest length of the text, in tokens of four characters.
    """
    results: dict[str, ToolUse] = {}
    uses = {use.node.step: use for section in story.sections for use in section.uses}
    parts = [part for section in story.sections for part in _section(section, uses, results)]
    if parts:
        parts[0].vital = parts[-1].vital = True
    return fitted(_head(summary, story, findings), parts, max_tokens * CHARACTERS)


def _head(summary: TraceSummary, story: Story, findings: Sequence[Finding]) -> Part:
    """Return the part about the trace as a whole."""
    tree = story.tree
    took = elapsed(summary.started_at, summary.last_at)
    tokens = tree.tokens
    cached = f" ({tokens.cached_share} of the prompts cached)" if tokens.cache_read else ""
    facts = [
        ("agent", inline(excerpt(summary.agent_name, _NAME))),
        ("outcome", inline(story.status)),
        ("began", inline(summary.started_at)),
        ("note", summary.beginning),
        ("took", "" if took is None else duration(took)),
        ("turns of models", f"{story.turns:,}"),
        ("tool calls", f"{tree.tool_calls:,}"),
        ("tokens", f"{tokens.total:,}{cached}" if tokens.total else ""),
        ("cost", "" if summary.cost is None else dollars(summary.cost)),
    ]
    head = Part([Piece(f"# Trace {inline(excerpt(summary.trace_id, _NAME))}\n\n")])
    head.pieces += [Piece(f"- {name}: {fact}\n") for name, fact in facts if fact]
    for title, text in (("Asked", story.asked), ("Ended with", story.ended)):
        if text:
            head.pieces += [Piece("\n"), *_text(title, text)]
    whys = [f"{why.text} -> {why.then}" if why.then else why.text for why in story.whys]
    head.pieces += _list("Scores", [_score(one) for one in summary.scores])
    head.pieces += _list("What explains it", whys)
    head.pieces += _list("Findings", [_finding(one) for one in findings])
    head.pieces.append(Piece("\n## Transcript\n"))
    return head


def _list(title: str, items: Sequence[str]) -> Iterator[Piece]:
    if items:
        yield Piece(f"\n## {title}\n\n")
        for item in items[:_LISTED]:
            yield from (Piece("- "), Piece(item, long=True, inline=True), Piece("\n"))
        if len(items) > _LISTED:
            yield Piece(f"- and {len(items) - _LISTED:,} more\n")


def _score(one: Score) -> str:
    return f"{one.line} (step {one.step})" if one.step else one.line


def _finding(one: Finding) -> str:
    where = f" (step {', '.join(map(str, one.steps[:3]))})" if one.steps else ""
    return f"{one.severity}: {one.title}{where}. {one.advice}"


def _section(section: Section, uses: dict[int, ToolUse], results: dict[str, ToolUse]) -> Iterator[Part]:
    """Yield the parts of a section. *results* has the calls whose results are written already, by call id."""
    where = f" in {inline(' > '.join(section.path))}" if section.path else ""
    failed = any(use.problem for use in section.uses) or any(node.error for node in section.others)
    if section.node is not None:
        yield Part([Piece(f"\n### Step {inline(section.node.name)}{where}{_facts(section.node)}\n")])
    elif section.turn is not None:
        turn = section.turn
        yield Part(list(_turn(turn, where, results)), vital=failed or bool(turn.error))
        results.update({call.id: uses[call.step] for call in turn.calls if call.id and call.step in uses})
    else:
        yield Part([Piece(f"\n### Calls{where}\n")], vital=failed)
    for use in section.uses:
        yield Part(list(_use(use)), vital=bool(use.problem))
    for node in section.others:
        yield Part(list(_other(node)), vital=bool(node.error))


def _turn(turn: Turn, where: str, results: dict[str, ToolUse]) -> Iterator[Piece]:
    """Yield the heading of a turn, its new input, and its answer."""
    node = turn.node
    model = f" {inline(node.model)}" if node.model else ""
    yield Piece(f"\n### Turn {turn.number}: {inline(node.name)}{model}{where}{_facts(node)}\n\n")
    if turn.continues and turn.continues != turn.number - 1:
        yield Piece(f"Goes on from turn {turn.continues}.\n")
    if turn.retry_of:
        yield Piece(f"Tries turn {turn.retry_of} again.\n")
    yield from _new_input(turn, results)
    for thought in turn.thinking:
        yield from _text("thinking", thought)
    if turn.answer:
        yield from _text("assistant", turn.answer)
    if turn.error:
        yield Piece(f"FAILED: {_error(turn.error)}\n")
    if turn.finish_reason and stop_of(turn.finish_reason) not in ("complete", "tools"):
        yield Piece(f"finish reason: {inline(turn.finish_reason)}\n")
    for call in turn.calls:
        if not call.step:
            yield from _requested_call(call)


def _new_input(turn: Turn, results: dict[str, ToolUse]) -> Iterator[Piece]:
    for change in turn.changes:
        yield Piece(f"Changed in the prompt: {inline(change.summary)}\n")
        if change.diff:
            yield Piece(lines("\n".join(change.diff)), long=True, fenced=True)
    if turn.system:
        yield from _text("system", turn.system)
    if turn.offered:
        yield Piece(f"tools on offer: {inline(', '.join(turn.offered))}\n")
    for message in turn.messages:
        yield from _message(message, results)


def _error(error: str) -> str:
    return inline(shortened(error, _ERROR))


def _message(message: Message, results: dict[str, ToolUse]) -> Iterator[Piece]:
    """Yield a message, unless it is a result that is written with its call already."""
    use = results.get(message.call_id)
    if use is not None and not use.error and _holds_result(message.text, use.result):
        return
    role = inline(excerpt(" ".join(filter(None, [message.role or "message", message.name])), _NAME))
    beside = f" [{inline(message.other)}]" if message.other else ""
    yield from _text(f"{role}{beside}", message.text)
    for call in message.calls:
        yield from _requested_call(call, "asked for")


def _holds_result(text: str, result: Any) -> bool:
    """Return True if a message holds the result of a tool."""
    return text == result or value(parsed(text)) == value(result)


def _requested_call(call: Call, lead: str = "asked for, and not called here:") -> Iterator[Piece]:
    yield Piece(f"- {lead} {inline(call.name)}")
    yield from _arguments(call.arguments)
    yield Piece("\n")


def _arguments(arguments: Any) -> Iterator[Piece]:
    yield Piece("(")
    if isinstance(arguments, dict):
        for place, (name, argument) in enumerate(arguments.items()):
            yield Piece(f"{', ' if place else ''}{inline(name)}=")
            yield Piece(clean(value(argument)), long=True, inline=True)
    elif arguments is not None:
        yield Piece(clean(value(arguments)), long=True, inline=True)
    yield Piece(")")


def _use(use: ToolUse) -> Iterator[Piece]:
    """Yield a tool call with its outcome."""
    node = use.node
    yield Piece(f"- {inline(node.name)}")
    yield from _arguments(use.arguments)
    yield Piece(_facts(node))
    if node.said_failed:
        yield Piece("; said that it failed")
    if use.repeats:
        yield Piece(f"; the same call as before, {use.repeats + 1} in a row")
    if use.retry_of:
        yield Piece(f"; tries step {use.retry_of} again")
    if use.retried_by:
        yield Piece(f"; tried again in step {use.retried_by}")
    if use.error:
        yield Piece(f"\n  FAILED: {_error(use.error)}\n")
        if use.stack:
            yield Piece(lines(use.stack), long=True, fenced=True)
    elif use.response and node.status == "ok":
        yield Piece("\n")
        yield from _text("  result", use.result if isinstance(use.result, str) else value(use.result))
    else:
        yield Piece("\n")


def _other(node: Node) -> Iterator[Piece]:
    yield Piece(f"- {inline(node.name)}{_facts(node)}")
    for text in (node.arguments, node.result, node.error and f"FAILED: {node.error}"):
        if text:
            yield Piece(f" {inline(text)}")
    yield Piece("\n")


def _facts(node: Node) -> str:
    """Return the step of a node, and its known time, tokens and cost, in brackets."""
    tokens = node.tokens
    parts = [
        f"step {node.step}" if node.step else "",
        node.status if node.status not in ("ok", "error") else "",
        "" if node.latency_ms is None else duration(node.latency_ms),
    ]
    if tokens is not None and tokens.total:
        share = f", {tokens.cached_share} cached" if tokens.cache_read else ""
        parts.append(f"{tokens.sent:,} tokens in{share}, {tokens.completion:,} out")
    parts.append("" if node.cost is None else dollars(node.cost))
    text = "; ".join(part for part in parts if part)
    return f" ({text})" if text else ""


def _text(title: str, text: str) -> Iterator[Piece]:
    """Yield a text after its title: on the same line if it is short, else in a block."""
    if len(text) <= _INLINE and len(text.splitlines()) <= 1:
        yield Piece(f"{title}: ")
        yield Piece(clean(text), long=True, inline=True)
        yield Piece("\n")
    else:
        yield Piece(f"{title}:\n")
        yield Piece(lines(text), long=True, fenced=True)
