"""Problems of model turns: cut off, slow, costly, growing, sent to changing addresses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from statistics import median
from typing import Final, TypeVar

from whyops_trace._models.stops import stop_of
from whyops_trace._reading.excerpt import duration, get
from whyops_trace._rules.conversations import Conversations
from whyops_trace._rules.exchanges import Exchanges, ToolCall, Turn
from whyops_trace._rules.finding import Finding, named
from whyops_trace._shapes import dict_of, text_of

T = TypeVar("T")

#: Fewest calls of one kind that show a usual value.
USUAL: Final = 8
#: Number of robust standard deviations above the median from which on a value is an outlier: the bound of Iglewicz
#: and Hoaglin for the modified z-score (How to Detect and Handle Outliers, 1993).
DEVIATIONS: Final = 3.5
#: Factor from the median absolute deviation of normally distributed values to their standard deviation.
MAD_SCALE: Final = 1.4826
#: Multiple of the median that an outlier exceeds as well. Nearly equal values have a tiny deviation.
TIMES_USUAL: Final = 2
#: Milliseconds above the median from which on a wait is noticed.
SLOWER_BY_MS: Final = 1_000
#: Costs of a token in prompt tokens, by the list prices of most models.
CACHE_READ_COST: Final = 0.1
CACHE_WRITE_COST: Final = 1.25
COMPLETION_COST: Final = 5
#: Cost above the median, in prompt tokens, from which on a turn matters: one to three cents for most models.
COSTLIER_BY: Final = 10_000
#: Fewest turns in a row in which a context grows, and the smallest growth factor.
GROWING_TURNS: Final = 8
GROWN_TIMES: Final = 4
#: Tokens of a prompt below which growth costs little.
LARGE_CONTEXT: Final = 20_000
#: Parameters in which clients and frameworks take the address of the provider.
ADDRESSES: Final = ("base_url", "baseURL", "api_base", "api_url", "endpoint")


def cut_answers(exchanges: Exchanges) -> Iterator[Finding]:
    """Yield answers that were cut at a token limit. One with tool calls may hold half a call."""
    for turn in exchanges.turns:
        reason = text_of(get(turn.response.content, "finishReason")) if turn.response is not None else ""
        if stop_of(reason) == "cut" and not turn.wraps:
            limits = _limits(turn)
            yield Finding(
                "ANSWER_CUT",
                "high" if turn.calls else "medium",
                f"The answer of {turn.name} was cut off: it stopped for {named(reason)}.",
                [turn.step],
                "The agent goes on with half of a tool call: its arguments may be no JSON, or lack the end."
                if turn.calls
                else "The agent goes on with half an answer, which reads as if it were a whole one.",
                "Raise the limit of tokens, ask for shorter answers, or shorten the prompt where the model's window is "
                "full; and let the agent check the finish reason.",
                {
                    "model": turn.name,
                    "finishReason": named(reason),
                    "completionTokens": turn.tokens.completion,
                    **limits,
                },
            )


def _limits(turn: Turn) -> dict[str, int]:
    params = dict_of(turn.request.metadata.get("params")) if turn.request is not None else {}
    names = ("max_tokens", "max_completion_tokens", "max_output_tokens")
    return {name: params[name] for name in names if type(params.get(name)) is int}


def slow_calls(exchanges: Exchanges) -> Iterator[Finding]:
    """Yield calls that took far longer than others of the same tool, or of the same function and model."""
    calls: list[ToolCall | Turn] = [*exchanges.tools, *exchanges.turns]
    for call, took, usual in outliers(calls, _kind, _duration, SLOWER_BY_MS):
        yield Finding(
            "SLOW_CALL",
            "low",
            f"{call.name} took {duration(took)}; usually it takes {duration(usual)}.",
            [call.step],
            "The user waited for this one call, and nothing of its kind took nearly as long.",
            "Look at what was different in its arguments, and set a timeout with a retry where slowness is not the "
            "call's fault.",
            {"name": call.name, "latencyMs": took, "medianMs": usual},
        )


def costly_turns(exchanges: Exchanges) -> Iterator[Finding]:
    """Yield turns that cost far more than others of the same function and model."""
    for turn, cost, usual in outliers(exchanges.turns, _kind, _cost, COSTLIER_BY):
        tokens = turn.tokens
        yield Finding(
            "COSTLY_TURN",
            "low",
            f"A turn of {turn.name} took {tokens.total:,} tokens, {cost / max(usual, 1):,.0f} times as much as usual.",
            [turn.step],
            "This turn alone took a large share of what the trace costs.",
            "Look at what is new in its prompt: results of tools are best shortened before they go to the model.",
            {
                "model": turn.name,
                "promptTokens": tokens.prompt,
                "cacheReadTokens": tokens.cache_read,
                "cacheCreationTokens": tokens.cache_creation,
                "completionTokens": tokens.completion,
            },
        )


def outliers(
    things: Iterable[T],
    kind: Callable[[T], Hashable],
    measure: Callable[[T], float | None],
    above: float,
) -> Iterator[tuple[T, float, float]]:
    """
    Yield the things whose value is far above the usual of their kind, with the value and the median.

    Such a value is greater than each of: the median plus 3.5 times the standard deviation, as estimated from the
    median absolute deviation; twice the median; and the median plus *above*. Unlike a mean and a standard deviation,
    the median and the median absolute deviation do not move with the outliers.
    """
    kinds: dict[Hashable, list[tuple[T, float]]] = defaultdict(list)
    for thing in things:
        value = measure(thing)
        if value is not None:
            kinds[kind(thing)].append((thing, value))
    for alike in kinds.values():
        if len(alike) >= USUAL:
            usual = median(value for _, value in alike)
            spread = MAD_SCALE * median(abs(value - usual) for _, value in alike)
            limit = max(usual + DEVIATIONS * spread, TIMES_USUAL * usual, usual + above)
            yield from ((thing, value, usual) for thing, value in alike if value > limit)


def _kind(call: ToolCall | Turn) -> Hashable:
    return ("tool", call.name) if isinstance(call, ToolCall) else (call.function, call.model)


def _duration(call: ToolCall | Turn) -> float | None:
    return None if isinstance(call, Turn) and call.wraps else call.latency_ms


def _cost(turn: Turn) -> float | None:
    """Return the cost of a turn in prompt tokens, None if unknown."""
    tokens = turn.tokens
    if not tokens.total or turn.wraps:
        return None
    return (
        tokens.prompt
        + CACHE_READ_COST * tokens.cache_read
        + CACHE_WRITE_COST * tokens.cache_creation
        + COMPLETION_COST * tokens.completion
    )


def growing_contexts(conversations: Conversations) -> Iterator[Finding]:
    """Yield conversations whose prompts only get longer, four times and more."""
    for turns in conversations.all:
        run = _longest_growth([turn for turn in turns if turn.tokens.sent])
        if len(run) < GROWING_TURNS:
            continue
        first, last = run[0].tokens.sent, run[-1].tokens.sent
        if last >= LARGE_CONTEXT and last >= GROWN_TIMES * first:
            yield Finding(
                "CONTEXT_GROWTH",
                "medium",
                f"The context of {run[0].name} grew from {first:,} to {last:,} tokens in {len(run):,} turns, and never "
                "shrank.",
                [run[-1].step, run[0].step],
                "Each turn pays for all before it, models find less in long contexts, and in the end the window is "
                "full.",
                "Shorten or drop old results of tools, summarise what lies far back, or hand parts of the work to "
                "agents with a context of their own.",
                {
                    "model": run[0].name,
                    "turns": len(run),
                    "firstTokens": first,
                    "lastTokens": last,
                    "tokensPerTurn": round((last - first) / (len(run) - 1)),
                },
            )


def _longest_growth(turns: list[Turn]) -> list[Turn]:
    """Return the longest row of turns in which no prompt is shorter than the one before."""
    longest: list[Turn] = []
    run: list[Turn] = []
    for turn in turns:
        if run and turn.tokens.sent < run[-1].tokens.sent:
            run = []
        run.append(turn)
        if len(run) > len(longest):
            longest = run
    return longest


def changing_addresses(exchanges: Exchanges) -> Iterator[Finding]:
    """Yield functions whose calls go to changing addresses, set by a parameter."""
    functions: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for turn in exchanges.turns:
        if turn.function and turn.request is not None:
            params = dict_of(turn.request.metadata.get("params"))
            address = next((text_of(params[name]) for name in ADDRESSES if params.get(name)), "")
            functions[turn.function][address].append(turn.first.step)
    for function, addresses in functions.items():
        if len(addresses) > 1:
            steps = sorted(
                step for address, steps_there in addresses.items() if address for step in steps_there
            )
            yield Finding(
                "ADDRESS_OVERRIDDEN",
                "low",
                f"{named(function)} is sent to another address request by request.",
                steps,
                "Requests that go past the WhyOps proxy are in no trace of it, and nobody sees from the program where "
                "its prompts go.",
                "Set the address once, where the client is made: proxy_base_url of WhyOps for the proxy, base_url of "
                "the provider's client for the provider.",
                {"function": named(function), "addresses": len(addresses)},
            )
