"""
Costs of turns of models in US dollars, by the price data of genai-prices.

A cost is right, or there is none. Nothing is guessed for a model, a provider or a kind of token that the price data
does not know, nor for a usage that counts only half of the tokens or whose parts are not the whole; and a sum with an
unknown cost in it is unknown. The package is an extra, takes a quarter of a second to load, and is loaded when the
first turn is priced.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from whyops_trace._guard import attempt
from whyops_trace._reading.excerpt import MAX_TOKENS, get
from whyops_trace._shapes import text_of

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, Provider, TieredPrices

#: Names of the prices of the counts in a usage, each in USD for a million tokens.
_INPUT: Final = "input_mtok"
_OUTPUT: Final = "output_mtok"
_CACHE_READ: Final = "cache_read_mtok"
_CACHE_WRITE: Final = "cache_write_mtok"
_CACHE_WRITE_1H: Final = "cache_write_1h_mtok"
#: Prices of services that are billed beside the tokens.
_BESIDE: Final = frozenset({"web_searches_kcount", "storage_searches_kcount"})
#: A model with any other price has tokens (of sounds, of images) that a usage does not tell from those of texts.
_UNDERSTOOD: Final = _BESIDE | {_INPUT, _OUTPUT, _CACHE_READ, _CACHE_WRITE, _CACHE_WRITE_1H}

_COUNTS: Final = (
    "promptTokens",
    "completionTokens",
    "cacheReadTokens",
    "cacheCreationTokens",
    "cacheWrite1hTokens",
    "totalTokens",
    "reasoningTokens",
)


def are_known() -> bool:
    """Tell whether the price data is installed, and load it."""
    _, error = attempt(_load)
    return error is None


def is_billed(kind: str, wraps: object) -> bool:
    """
    Tell whether a record is a turn that a provider bills.

    Args:
        kind: The event type.
        wraps: Member of that name in its metadata: True if it only repeats the turn of a client called in it.
    """
    return kind in ("llm_response", "embedding_response") and wraps is not True


def cost(model: object, provider: object, usage: object, at: object) -> Decimal | None:
    """
    Return the cost of a turn in USD, None if it is not known for certain.

    A :class:`~decimal.Decimal`, as the prices are: a sum of ten thousand turns comes out to the last digit.

    Args:
        model: The model that answered, such as ``gpt-4o``, or ``openai/gpt-4o``.
        provider: Service that is paid. If the price data does not know it, the provider in the model's name counts,
            unless the service is only known by its host: whoever that is has prices of its own.
        usage: The token counts of a record.
        at: The time of the turn, ISO 8601: prices change.
    """
    info = _find_model(text_of(provider), text_of(model))
    time = _time(at)
    if info is None or time is None:
        return None
    prices = vars(info.get_prices(time))
    counts = _counts(usage, answers=prices.get(_OUTPUT) is not None)
    if counts is None or any(prices[name] is not None for name in prices.keys() - _UNDERSTOOD):
        return None
    sent = sum(counts.values()) - counts[_OUTPUT]
    amount = Decimal(0)
    for name, count in counts.items():
        if count:
            price = prices.get(name)
            if price is None:
                return None
            amount += _price(price, sent) * count
    return amount / 1_000_000


def cost_of(metadata: Mapping[str, Any], at: object) -> Decimal | None:
    """Return the cost of the turn with this metadata and time, None if it is not known for certain."""
    return cost(metadata.get("model"), metadata.get("provider"), metadata.get("usage"), at)


def total(costs: Iterable[Decimal | None]) -> Decimal | None:
    """Return the sum; None if one of the costs is unknown, or there are none."""
    amount = None
    for one in costs:
        if one is None:
            return None
        amount = one if amount is None else amount + one
    return amount


def _counts(usage: object, *, answers: bool) -> dict[str, int] | None:
    """
    Return the number of tokens billed at each price, None if the usage leaves one of them open.

    Args:
        usage: The token counts of a record; those of the prompt are without the cached ones.
        answers: True if the model's answers are billed; else, as for embeddings, all tokens are the prompt's.
    """
    counts = [get(usage, name) for name in _COUNTS]
    if not all(count is None or _is_count(count) for count in counts):
        return None
    prompt, completion, read, written, written_1h, all_of_them, reasoning = counts
    if not answers:
        prompt, completion = all_of_them if prompt is None else prompt, completion or 0
    read, written, written_1h = read or 0, written or 0, written_1h or 0
    if prompt is None or completion is None or written_1h > written or (reasoning or 0) > completion:
        return None
    if all_of_them not in (None, prompt + completion + read + written):
        return None
    return {
        _INPUT: prompt,
        _OUTPUT: completion,
        _CACHE_READ: read,
        _CACHE_WRITE: written - written_1h,
        _CACHE_WRITE_1H: written_1h,
    }


def _is_count(count: object) -> bool:
    return type(count) is int and 0 <= count <= MAX_TOKENS


def _price(price: Decimal | TieredPrices, sent: int) -> Decimal:
    """Return the price of a million tokens; it may rise for all of them when many are *sent*."""
    if isinstance(price, Decimal):
        return price
    reached = [tier.price for tier in price.tiers if sent > tier.start]
    return reached[-1] if reached else price.base


def _time(at: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(text_of(at))
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


@functools.lru_cache(maxsize=1_000)
def _find_model(provider: str, model: str) -> ModelInfo | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of that package are not for users of this one
        info, _error = attempt(_look_up, provider.lower(), model)
    return info


def _load() -> list[Provider]:
    """
    Return the price data.

    Raises:
        ImportError: if the package is not installed.
    """
    from genai_prices.data_snapshot import get_snapshot

    return get_snapshot().providers


def _look_up(provider: str, model: str) -> ModelInfo | None:
    """
    Return a model of the provider of exactly that name, None if there is none.

    Raises:
        ImportError: if the package is not installed.
    """
    providers = _load()
    by_id = {one.id: one for one in providers}
    slug, _, rest = model.lower().partition("/")
    seller = by_id.get(provider) or (None if _is_host(provider) else by_id.get(slug))
    if seller is None:
        return None
    # A reseller's own names of models may have a slug, as "openai/gpt-4o" has with OpenRouter.
    names = [model, rest] if rest and slug == seller.id else [model]
    models = (seller.find_model(name, all_providers=providers) for name in names)
    return next(filter(None, models), None)


def _is_host(provider: str) -> bool:
    return provider == "localhost" or any(sign in provider for sign in ".:")
