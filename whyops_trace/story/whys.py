"""The lines that explain a run, each by a fixed rule; docs/explanation/story.md has the rules in words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from whyops_trace._models.stops import stop_of
from whyops_trace._reading.excerpt import (
    clean,
    duration,
    excerpt,
    headline,
    percent,
    shorten,
    stopped_by,
    value,
)
from whyops_trace._reading.nodes import Node
from whyops_trace._reading.summary import LOOP
from whyops_trace.story.habits import habits
from whyops_trace.story.looks import looks
from whyops_trace.story.material import Material
from whyops_trace.story.outcome import Trouble
from whyops_trace.story.provenance import Origin
from whyops_trace.story.retries import failed
from whyops_trace.story.shortfalls import shortfalls
from whyops_trace.story.turns import Change, ToolUse, Turn, Why, WhyKind

#: A prompt that grew by more than this share, and by at least that many tokens, jumped.
_JUMP: Final = 0.5
_JUMP_TOKENS: Final = 2_000
#: A call that took at least this share of the time, and that many milliseconds, is worth a line.
_LONG: Final = 1 / 3
_LONG_MS: Final = 1_000
#: Largest numbers of characters of a call, of an error and of a changed argument in a line.
_CALL: Final = 90
_ERROR: Final = 160
_VALUE: Final = 80
#: Largest number of changed arguments in a line.
_CHANGES: Final = 3
#: Largest number of arguments whose origin is in a line.
_ORIGINS: Final = 2

#: Largest number of lines of one kind. The others are counted.
_SHOWN: Final = 4
#: Nouns for those others.
_MORE: Final[dict[WhyKind, str]] = {
    "failed": "calls that failed",
    "retried": "calls that failed and were tried again",
    "runaway": "limits that were used up",
    "loop": "rows of identical calls",
    "cycle": "cycles of calls",
    "look": "turns that are worth a look",
    "early": "early turns",
    "again": "calls that were repeated",
    "alike": "rows of answers nearly alike",
    "stuck": "agents that say that they go round in circles",
    "claim": "claims of what no call did",
    "unused": "tools that were never called",
    "contradicted": "messages of a user who contradicts",
    "standin": "stand-ins for data or services",
    "vain": "tools that found nothing",
    "partial": "results of which only a part was read",
    "unanswered": "turns whose calls were never made",
    "cut": "answers that were cut off",
    "context": "turns whose prompt jumped in size",
    "prompt": "turns that changed the prompt",
    "longest": "long calls",
    "open": "calls that never ended",
}

#: Kinds of lines that come first.
_LOOKS: Final = frozenset({"look", "early"})
#: Verbs for errors, by the name of their type.
_VERBS: Final = (
    (re.compile(r"time_?d?_?out|deadline", re.IGNORECASE), "timed out"),
    (re.compile(r"polic|permission|denied|refus|forbidden|unauthori[sz]ed", re.IGNORECASE), "was refused"),
    (re.compile(r"rate_?limit|too_?many", re.IGNORECASE), "was rate limited"),
)


def explain(material: Material) -> list[Why]:
    """Return the lines that explain a trace, the most important first."""
    lines = [why for rule in _RULES for why in rule(material)]
    # Turns that are worth a look come first, in a run of several agents, and then problems without recovery.
    lines.sort(key=lambda why: (why.kind != "look", why.kind != "early", not why.bad))
    return [
        why
        for first in (True, False)
        for why in _fewer([why for why in lines if (why.bad or why.kind in _LOOKS) is first])
    ]


def _fewer(lines: Sequence[Why]) -> Iterator[Why]:
    """Yield the first lines of each kind, and one that counts the others."""
    counts = Counter(why.kind for why in lines)
    counts_so_far: Counter[str] = Counter()
    for why in lines:
        counts_so_far[why.kind] += 1
        rest = counts[why.kind] - _SHOWN
        if counts_so_far[why.kind] <= _SHOWN or rest == 1:
            yield why
        elif counts_so_far[why.kind] == _SHOWN + 1:
            yield Why(why.kind, f"{rest:,} more: {_MORE[why.kind]}", why.step, bad=why.bad)


def _failures(material: Material) -> Iterator[Why]:
    """Failures and their consequences; the first failed call stands for its retries."""
    for trouble in material.failures.troubles:
        use, turn = trouble.use, trouble.turn
        if (use and use.retry_of) or (turn and turn.retry_of):
            continue
        node = trouble.node
        recovered = material.failures.recovered(trouble)
        origins = _origins(material, trouble, recovered)
        text = "; ".join(
            [f"{material.place(node.step)}{_failure_text(trouble)}", *(one.text for one in origins)]
        )
        then, step = (
            _then_of_use(material, use) if use else _then_of_turn(material, turn) if turn else ("", 0)
        )
        retried = bool(step)
        if not retried:
            then, step = material.went_on(turn or material.arrangement.turn_of(node.step))
        kind: WhyKind = "runaway" if stopped_by(trouble.error) else "retried" if retried else "failed"
        more = [origin.step for origin in origins if origin.step]
        yield Why(kind, text, node.step, then, step, bad=not recovered, more=more)
    ending, story = material.telling.ending, material.story
    error = ending.block[1] or (story.ended if story.ended_reason == "error" else "")
    if error and not any(
        headline(trouble.error, _ERROR) == headline(error, _ERROR) for trouble in material.failures.troubles
    ):
        last = max(material.telling.steps, default=0) if ending.block[1] else ending.failure[0]
        yield Why("failed", f"the trace ended with {headline(error, _ERROR)}", last, bad=True)


def _origins(material: Material, trouble: Trouble, recovered: bool) -> list[Origin]:
    """Return where the arguments of a failed call came from that are odd, or that its error names, few of them."""
    found = material.origins.get(trouble.node.step, [])
    odd = [origin for origin in found if origin.is_odd]
    named = [origin for origin in found if not origin.is_odd and origin.value.strip('"') in trouble.error]
    return (odd if recovered else odd + named)[:_ORIGINS]


def _cancelled(material: Material) -> Iterator[Why]:
    """Cancelled tool calls, with their retries."""
    for one in material.arrangement.tool_calls:
        node = one.use.node
        if node.status == "cancelled" and not one.use.retry_of:
            took = f" after {duration(node.latency_ms)}" if node.latency_ms else ""
            text = f"{material.place(node.step)}{_call(node)} was cancelled{took}"
            then, step = _then_of_use(material, one.use)
            yield Why("retried" if step else "failed", text, node.step, then, step)


def _failure_text(trouble: Trouble) -> str:
    node, error = trouble.node, trouble.error
    kind = error.partition(":")[0]
    verb = next((phrase for pattern, phrase in _VERBS if pattern.search(kind)), "failed")
    if trouble.is_said:
        return f"{_call(node)} said that it failed: {headline(error, _ERROR)}"
    if verb == "timed out" and node.latency_ms:
        verb += f" after {duration(node.latency_ms)}"
    if limit := stopped_by(error):
        return f"stopped by {headline(limit, _ERROR)}"
    if node.kind == "event" and node.name == "error":
        return f"error: {headline(error, _ERROR)}"
    if trouble.turn is not None:
        subject = " ".join(filter(None, ["the model", f"({node.model or node.name})"]))
    else:
        subject = _call(node) if node.kind in ("tool", "embedding") else f"step {node.name}"
    return f"{subject} {verb}" + (f": {headline(error, _ERROR)}" if error != "failed" else "")


def _then_of_use(material: Material, use: ToolUse) -> tuple[str, int]:
    """Return the retries of a tool call in words and the step of the last one, "" and 0 if there are none."""
    tries = list(material.failures.tries_of_use(use))
    if not tries:
        return "", 0
    last = tries[-1]
    turn = material.arrangement.turn_of(last.node.step)
    where = f"turn {turn.number}" if turn else "a later call"
    beginning = (
        f"{where} tried again" if len(tries) == 1 else f"tried again {len(tries)} times, at last in {where},"
    )
    if failed(last):
        said = bool(last.node.said_failed)
        if last.problem == use.problem:
            outcome = "said the same again" if said else "failed with the same error"
        else:
            outcome = f"{'said that it failed' if said else 'failed'}: {headline(last.problem, _ERROR)}"
    else:
        outcome = {"ok": "ok", "running": "still open", "unfinished": "never ended"}.get(
            last.node.status, last.node.status
        )
    return f"{beginning} with {_changed(last.changes)}: {outcome}", last.node.step


def _then_of_turn(material: Material, turn: Turn) -> tuple[str, int]:
    """Return the retries of a turn in words and the step of the last one, "" and 0 if there are none."""
    tries = list(material.failures.tries_of_turn(turn))
    if not tries:
        return "", 0
    last = tries[-1]
    other = last.node.name if last.node.name != turn.node.name else ""
    by = f" with {other}" if other else ""
    where = f"turn {last.number}"
    beginning = (
        f"{where} tried again" if len(tries) == 1 else f"tried again {len(tries)} times, at last in {where}"
    )
    outcome = f"failed: {headline(last.error, _ERROR)}" if last.error else last.node.status
    return f"{beginning}{by}: {outcome}", last.node.step


def _changed(changes: Sequence[Change]) -> str:
    """Return the changed arguments of a retry, in words."""
    if not changes:
        return "the same arguments"
    parts = []
    for change in changes[:_CHANGES]:
        path = clean(change.path) or "arguments"
        if change.after is None:
            parts.append(f"no {path} (was {headline(change.before or '', _VALUE)})")
        else:
            was = f" (was {headline(change.before, _VALUE)})" if change.before is not None else " (new)"
            parts.append(f"{path}={headline(change.after, _VALUE)}{was}")
    more = len(changes) - len(parts)
    return ", ".join(parts) + (f" and {more} more changes" if more else "")


def _open(material: Material) -> Iterator[Why]:
    """Calls that never end because their process is gone; of nested calls only the innermost."""
    for node in material.telling.order:
        if node.status == "unfinished" and not any(child.status == "unfinished" for child in node.children):
            subject = _call(node) if node.kind in ("tool", "embedding") else f"{node.kind} {node.name}"
            text = f"{material.place(node.step)}{subject} never ended: its process is gone"
            yield Why("open", text, node.step, bad=True)


def _loops(material: Material) -> Iterator[Why]:
    """The same call with the same arguments, three times or more in a row."""
    for row in material.arrangement.rows:
        if len(row) < LOOP:
            continue
        first, last = row[0], row[-1]
        turns = [one.turn.number for one in (first, last) if one.turn]
        where = f" (turns {turns[0]} to {turns[1]})" if len(set(turns)) == 2 else ""
        all_failed = all(failed(one.use) for one in row)
        same = not all_failed and len({(value(one.use.result), one.use.error) for one in row}) == 1
        if not (same or all_failed or first.use.arguments):
            continue  # such as the next page each time
        came = ", each time with the same result" if same else ""
        text = f"{_call(first.use.node)} was called {len(row)} times in a row{where}{came}"
        then, step = material.went_on(last.turn)
        yield Why("loop", text, first.use.node.step, then, step, bad=same or all_failed)


def _unanswered(material: Material) -> Iterator[Why]:
    """Tool calls that a model requested and the agent never made."""
    answered = material.telling.answered
    running = material.story.ended_reason == "running"
    for turn in material.arrangement.turns:
        missing = [
            call
            for call in turn.calls
            if not call.step and (call.id or call.name) not in answered and call.name
        ]
        continued = turn.continued_by > 0
        if not missing or (running and not continued):
            continue
        arguments = excerpt(value(missing[0].arguments), _CALL)
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        end = "never called" if continued else "and no record tells that it ran"
        text = f"{material.name(turn)} asked for {clean(missing[0].name)}({clean(arguments)}){more}, {end}"
        then, step = material.went_on(turn)
        yield Why("unanswered", text, turn.node.answer or turn.node.step, then, step, bad=continued)


def _cuts(material: Material) -> Iterator[Why]:
    """Answers that a limit or a filter cut off."""
    for turn in material.arrangement.turns:
        stop = stop_of(turn.finish_reason)
        if stop in ("cut", "filtered"):
            by = "cut off at the token limit" if stop == "cut" else "stopped by a refusal or a filter"
            then, step = material.went_on(turn)
            text = f"{material.name(turn)} was {by} ({clean(turn.finish_reason)})"
            yield Why("cut", text, turn.node.answer or turn.node.step, then, step, bad=not step)


def _prompts(material: Material) -> Iterator[Why]:
    """Turns that changed the earlier prompt, with the effect on the cache."""
    turns = material.arrangement.turns
    for turn in turns:
        if not turn.changes:
            continue
        summaries = ", ".join(headline(change.summary, _ERROR) for change in turn.changes)
        if not turn.lost and all(change.part == "tools" for change in turn.changes):
            continue  # an agent that offers other tools in another phase, at no cost
        fell = [percent(one.cached or 0) for one in (turns[turn.continues - 1], turn)]
        then = f"cached share of the prompt fell from {fell[0]} to {fell[1]}" if turn.lost else ""
        yield Why("prompt", f"{material.name(turn)} changed the prompt: {summaries}", turn.node.step, then)


def _jumps(material: Material) -> Iterator[Why]:
    """Turns whose prompt is much longer than that of the turn they continue."""
    for turn in material.arrangement.turns:
        tokens = turn.node.tokens
        if turn.grown is None or tokens is None or turn.grown < _JUMP_TOKENS:
            continue
        if turn.grown > _JUMP * (tokens.sent - turn.grown):
            text = f"{material.name(turn)}: the prompt grew by {turn.grown:,} to {tokens.sent:,} tokens"
            largest = max(turn.messages, key=lambda message: len(message.text), default=None)
            then = ""
            if largest is not None and largest.text:
                source = (
                    f"the result of {clean(largest.name)}"
                    if largest.name
                    else f"a {clean(largest.role)} message"
                )
                then = f"the longest of what is new: {source}, {len(largest.text):,} characters"
            yield Why("context", text, turn.node.step, then)


def _longest(material: Material) -> Iterator[Why]:
    """The longest call, if it took a good part of the time."""
    total = material.story.tree.duration_ms or 0.0
    calls = [
        node
        for node in material.telling.order
        if node.kind in ("tool", "llm", "embedding") and not node.children
    ]
    longest = max(calls, key=lambda node: node.latency_ms or 0.0, default=None)
    took = longest.latency_ms if longest is not None else None
    if longest is None or took is None or took < _LONG_MS or took < _LONG * total:
        return
    subject = _call(longest) if longest.kind != "llm" else f"the model ({longest.model or longest.name})"
    share = f" of {duration(total)}" if total >= took else ""
    yield Why(
        "longest", f"{material.place(longest.step)}{subject} took {duration(took)}{share}", longest.step
    )


#: The rules, the most important first.
_RULES: Final[tuple[Callable[[Material], Iterator[Why]], ...]] = (
    _failures,
    _open,
    _cuts,
    _loops,
    habits,
    shortfalls,
    looks,
    _unanswered,
    _cancelled,
    _prompts,
    _jumps,
    _longest,
)


def _call(node: Node) -> str:
    return shorten(f"{node.name}({node.arguments})", _CALL)
