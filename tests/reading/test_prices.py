"""What turns cost: the same as the price data says, or nothing at all."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import genai_prices
import pytest
from genai_prices import data_snapshot
from genai_prices.types import ModelInfo, TieredPrices
from programs import run_code

from whyops_trace._reading import prices
from whyops_trace._reading.prices import cost, is_billed, total

#: The time of the turns.
AT = "2026-11-21T22:30:00.000Z"
TIME = datetime(2026, 11, 21, 22, 30, tzinfo=UTC)
ANTHROPIC = ["claude-haiku-4-5", "claude-opus-4-1-20250805", "claude-opus-4-5"]


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """Let each test look models up anew."""
    prices._find_model.cache_clear()
    yield
    prices._find_model.cache_clear()


def rates(provider: str, model: str, at: datetime = TIME) -> Any:
    """Return the package's prices of a model, in USD for a million tokens, as they were at a time."""
    nothing = genai_prices.Usage()
    return genai_prices.calc_price(
        nothing, model, provider_id=provider, genai_request_timestamp=at
    ).model_price


def usage(
    prompt: int = 0, completion: int = 0, read: int = 0, written: int = 0, written_1h: int = 0
) -> dict[str, int]:
    """Return the token counts of a turn, those of the prompt without the cached ones."""
    return {
        "promptTokens": prompt,
        "completionTokens": completion,
        "totalTokens": prompt + completion + read + written,
        "cacheReadTokens": read,
        "cacheCreationTokens": written,
        "cacheWrite1hTokens": written_1h,
        "reasoningTokens": completion // 2,
    }


# Right figures


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4.1-mini-2025-04-14", "o3"])
def test_a_turn_of_openai_costs_its_prompt_its_cached_prompt_and_its_answer(model: str) -> None:
    """The prices are the package's for that model; what was read from the cache has one of its own."""
    price = rates("openai", model)
    million = 1_000_000
    expected = (1_200 * price.input_mtok + 800 * price.cache_read_mtok + 300 * price.output_mtok) / million

    assert cost(model, "openai", usage(1_200, 300, read=800), AT) == expected
    assert price.cache_read_mtok < price.input_mtok < price.output_mtok
    assert cost(model, "openai", usage(million), AT) == price.input_mtok


@pytest.mark.parametrize("model", ANTHROPIC)
def test_a_turn_of_anthropic_costs_its_cache_writes_by_how_long_they_last(model: str) -> None:
    """The prices are the package's for that model; a write for an hour costs more than one for five minutes."""
    price = rates("anthropic", model)
    expected = (
        1_200 * price.input_mtok
        + 800 * price.cache_read_mtok
        + 400 * price.cache_write_mtok
        + 100 * price.cache_write_1h_mtok
        + 300 * price.output_mtok
    ) / 1_000_000

    assert cost(model, "anthropic", usage(1_200, 300, read=800, written=500, written_1h=100), AT) == expected


@pytest.mark.parametrize("model", ANTHROPIC)
def test_the_cache_of_anthropic_costs_known_shares_of_its_prompt(model: str) -> None:
    """A tenth to read, 1.25 times to write for five minutes, twice to write for an hour, as Anthropic publishes."""
    prompt, read, written, written_1h = (
        cost(model, "anthropic", counts, AT)
        for counts in (
            usage(1_000_000),
            usage(read=1_000_000),
            usage(written=1_000_000),
            usage(written=1_000_000, written_1h=1_000_000),
        )
    )

    assert prompt is not None
    assert read == prompt / 10
    assert written == prompt * 5 / 4
    assert written_1h == prompt * 2


@pytest.mark.parametrize("provider", ["openai", "anthropic", "azure", "google", "x-ai", "openrouter"])
@pytest.mark.parametrize(
    "counts",
    [
        usage(1_000, 200),
        usage(1_000, 200, read=300),
        usage(150_000, 200, read=300_000),
        usage(1_000, 200, read=30, written=500, written_1h=200),
    ],
)
def test_every_figure_is_that_of_the_package(provider: str, counts: dict[str, int]) -> None:
    """For all models of a provider, or there is none."""
    read, written = counts["cacheReadTokens"], counts["cacheCreationTokens"]
    theirs = genai_prices.Usage(
        input_tokens=counts["promptTokens"] + read + written,
        output_tokens=counts["completionTokens"],
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=counts["cacheWrite1hTokens"],
    )
    figures = {model.id: cost(model.id, provider, counts, AT) for model in models(provider)}
    known = {model: figure for model, figure in figures.items() if figure is not None}

    assert known or written
    assert known == {
        model: genai_prices.calc_price(
            theirs, model, provider_id=provider, genai_request_timestamp=TIME
        ).total_price
        for model in known
    }


def models(provider: str) -> list[ModelInfo]:
    """Return the models of a provider in the price data."""
    return next(one for one in data_snapshot.get_snapshot().providers if one.id == provider).models


def test_a_long_prompt_costs_more_for_each_token_of_it() -> None:
    """Where the data has tiers; what is in the cache counts into the length, and the answer's price rises as well."""
    price = rates("anthropic", "claude-sonnet-4-5")
    assert isinstance(price.input_mtok, TieredPrices)
    (tier,) = price.input_mtok.tiers
    (for_answers,) = price.output_mtok.tiers
    (for_reads,) = price.cache_read_mtok.tiers
    at_limit = cost("claude-sonnet-4-5", "anthropic", usage(1_000, 10, read=tier.start - 1_000), AT)
    above = cost("claude-sonnet-4-5", "anthropic", usage(1_001, 10, read=tier.start - 1_000), AT)

    assert at_limit == (
        1_000 * price.input_mtok.base
        + 10 * price.output_mtok.base
        + (tier.start - 1_000) * price.cache_read_mtok.base
    ) / Decimal(1_000_000)
    assert above == (
        1_001 * tier.price + 10 * for_answers.price + (tier.start - 1_000) * for_reads.price
    ) / Decimal(1_000_000)


def test_the_time_of_a_turn_decides_its_price() -> None:
    """OpenAI lowered that of o3 on a day in 2025, and the data knows both prices."""
    before, after = (
        cost("o3", "openai", usage(1_000_000), f"2025-06-{day}T12:00:00.000Z") for day in ("09", "10")
    )

    assert before == rates("openai", "o3", datetime(2025, 6, 9, 12, tzinfo=UTC)).input_mtok
    assert after == rates("openai", "o3", datetime(2025, 6, 10, 12, tzinfo=UTC)).input_mtok
    assert before is not None
    assert after is not None
    assert after < before


@pytest.mark.parametrize(
    "counts", [{"totalTokens": 500}, {"promptTokens": 500, "totalTokens": 500}, {"promptTokens": 500}]
)
def test_an_embedding_has_no_answer(counts: dict[str, int]) -> None:
    """All its tokens are the prompt's."""
    price = rates("openai", "text-embedding-3-small")

    assert cost("text-embedding-3-small", "openai", counts, AT) == 500 * price.input_mtok / 1_000_000


# Whose price


@pytest.mark.parametrize(
    ("model", "provider", "seller", "name"),
    [
        ("gpt-4o", "openai", "openai", "gpt-4o"),
        ("gpt-4o-2024-08-06", "OpenAI", "openai", "gpt-4o"),
        ("openai/gpt-4o", "openai", "openai", "gpt-4o"),
        ("openai/gpt-4o", "unknown", "openai", "gpt-4o"),
        ("OpenAI/GPT-4o", "custom", "openai", "gpt-4o"),
        ("anthropic/claude-opus-4-5", "my-gateway", "anthropic", "claude-opus-4-5"),
        ("anthropic/claude-opus-4-5", "", "anthropic", "claude-opus-4-5"),
        ("gpt-4o", "azure", "azure", "gpt-4o"),
        ("openai/gpt-4o", "openrouter", "openrouter", "openai/gpt-4o"),
        ("openrouter/openai/gpt-4o", "unknown", "openrouter", "openai/gpt-4o"),
    ],
)
def test_the_price_is_that_of_who_is_paid(model: str, provider: str, seller: str, name: str) -> None:
    """Of the provider that is named, or else of the one in the model's name."""
    price = rates(seller, name)
    expected = (100 * price.input_mtok + 10 * price.output_mtok) / 1_000_000

    assert cost(model, provider, usage(100, 10), AT) == expected


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("gpt-4o", "unknown"),
        ("gpt-4o", "custom"),
        ("gpt-4o", ""),
        ("gpt-4o", None),
        ("gpt-4o", "anthropic"),
        ("openai/gpt-4o", "anthropic"),
        ("claude-opus-4-5", "openai"),
        ("anthropic/claude-opus-4-5", "openai"),
        # The package itself takes any provider whose name contains that of one it knows.
        ("gpt-4o", "my-openai-lookalike"),
        ("acme/gpt-4o", "unknown"),
        ("openai/", "unknown"),
        ("/gpt-4o", "unknown"),
        ("gpt-4o-of-tomorrow", "openai"),
        ("openai/gpt-4o-of-tomorrow", "unknown"),
        ("", "openai"),
        (None, None),
        (["gpt-4o"], {"openai": 1}),
        ("\ud800", "\ud800"),
    ],
)
def test_a_price_is_never_guessed(model: object, provider: object) -> None:
    """A model that the provider does not sell, and a provider that nobody knows, have no figure."""
    assert cost(model, provider, usage(100, 10), AT) is None


# What is not known


@pytest.mark.parametrize(
    "counts",
    [
        None,
        {},
        "many",
        {"totalTokens": 500},
        {"promptTokens": 500},
        {"completionTokens": 500},
        {"cacheReadTokens": 500},
        {"promptTokens": "500", "completionTokens": 10},
        {"promptTokens": 500.0, "completionTokens": 10},
        {"promptTokens": True, "completionTokens": 10},
        {"promptTokens": -1, "completionTokens": 10},
        {"promptTokens": 2**41, "completionTokens": 10},
        {"promptTokens": 500, "completionTokens": 10, "cacheReadTokens": "10"},
        {"promptTokens": 500, "completionTokens": 10, "cacheCreationTokens": 5, "cacheWrite1hTokens": 6},
        {"promptTokens": 500, "completionTokens": 10, "cacheWrite1hTokens": 6},
        {"promptTokens": 500, "completionTokens": 10, "totalTokens": 915},
        {"promptTokens": 500, "completionTokens": 10, "totalTokens": 509},
        {"promptTokens": 0, "completionTokens": 10, "cacheReadTokens": 500, "totalTokens": 300},
        {"promptTokens": 500, "completionTokens": 10, "reasoningTokens": 11},
    ],
)
def test_a_usage_that_does_not_tell_all_has_no_figure(counts: object) -> None:
    """Half of a turn's price is a wrong price."""
    assert cost("claude-opus-4-5", "anthropic", counts, AT) is None


def test_a_kind_of_token_without_a_price_has_no_figure() -> None:
    """OpenAI's gpt-4 has no cache, so whatever was read from one was not priced."""
    assert getattr(rates("openai", "gpt-4"), "cache_read_mtok", None) is None
    assert cost("gpt-4", "openai", usage(100, 10), AT) is not None
    assert cost("gpt-4", "openai", usage(100, 10, read=5), AT) is None
    assert cost("text-embedding-3-small", "openai", usage(100, 10), AT) is None


def test_a_model_that_bills_sounds_otherwise_has_no_figure() -> None:
    """The counts do not tell tokens of sounds from those of texts."""
    assert rates("openai", "gpt-4o-realtime-preview").input_audio_mtok > 0
    assert cost("gpt-4o-realtime-preview", "openai", usage(100, 10), AT) is None


@pytest.mark.parametrize("at", [None, "", "soon", 3, "2026-13-01T00:00:00Z"])
def test_a_turn_without_a_time_has_no_figure(at: object) -> None:
    """Prices change."""
    assert cost("gpt-4o", "openai", usage(100, 10), at) is None


def test_a_turn_that_took_no_tokens_cost_nothing() -> None:
    """Nothing is a figure too."""
    assert cost("gpt-4o", "openai", usage(), AT) == 0


def test_only_turns_are_billed() -> None:
    """And not one that repeats the turn of a client which was called in it."""
    assert [
        kind for kind in ("user_message", "llm_response", "embedding_response") if is_billed(kind, None)
    ] == [
        "llm_response",
        "embedding_response",
    ]
    assert is_billed("llm_response", "true")
    assert not is_billed("llm_response", True)


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        ([], None),
        ([Decimal("0.1")] * 3, Decimal("0.3")),
        ([Decimal(0)], Decimal(0)),
        ([Decimal(1), None, Decimal(2)], None),
        ([None], None),
    ],
)
def test_a_sum_of_which_a_part_is_unknown_is_unknown(
    costs: list[Decimal | None], expected: Decimal | None
) -> None:
    """A part is never passed off as the whole; what is known adds up to the last digit."""
    assert total(costs) == expected


# The package


def test_without_the_package_there_are_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra, and nothing is said about it."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "genai_prices"]:
        monkeypatch.setitem(sys.modules, name, None)

    assert cost("gpt-4o", "openai", usage(100, 10), AT) is None


def test_a_package_that_fails_costs_the_figures_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a release of it does, traces are shown."""

    def fail() -> None:
        raise RuntimeError("no data")

    monkeypatch.setattr(data_snapshot, "get_snapshot", fail)

    assert cost("gpt-4o", "openai", usage(100, 10), AT) is None


def test_what_the_package_warns_of_is_not_for_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """They did not call it."""
    before = data_snapshot.get_snapshot()

    def warn() -> data_snapshot.DataSnapshot:
        warnings.warn("prices are old", UserWarning, stacklevel=2)
        return before

    monkeypatch.setattr(data_snapshot, "get_snapshot", warn)

    assert cost("gpt-4o", "openai", usage(100, 10), AT) is not None


RECORDING = """
    import json, sys, threading
    from whyops_trace import WhyOps, trace, traced_llm

    sdk = WhyOps(agent_name="shop", console=True)

    @traced_llm(model="gpt-4o", provider="openai")
    def ask(question: str) -> dict:
        return {"content": "Yes", "usage": {"promptTokens": 100, "completionTokens": 10}}

    with trace("checkout-8841"):
        ask("Is it?")
    sdk.flush_sync()
    sdk.close_sync()
    recorded = "genai_prices" in sys.modules

    import os
    from whyops_trace.store import Store
    store = Store(os.environ["WHYOPS_HOME"] + "/traces.db")
    amount = store.trace("checkout-8841").cost
    store.close()
    print(json.dumps([recorded, amount, "genai_prices" in sys.modules, threading.active_count()]))
"""


def test_a_program_that_records_does_not_load_the_prices(tmp_path: Path) -> None:
    """Its workers neither; who asks for a cost does, and that starts nothing that could use the network."""
    done = run_code(RECORDING, tmp_path / "home")
    recorded, amount, shown, threads = json.loads(done.stdout.splitlines()[-1])

    assert (recorded, shown, threads) == (False, True, 1)
    assert amount == float(cost("gpt-4o", "openai", usage(100, 10), AT) or 0)
