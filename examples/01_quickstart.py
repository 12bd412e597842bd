"""The shortest traced agent: decorators, a trace, a step. Then: whyops-trace show order-1."""

from __future__ import annotations

from contextlib import suppress

from whyops_trace import flush_sync, step, trace, traced_llm, traced_tool

PRICES = {"tea": 450, "cups": 1200}


@traced_tool
def look_up_price(item: str) -> int:
    """Return a price in cents."""
    return PRICES[item]


@traced_tool(name="charge", redact=["card_number"])
def charge_card(card_number: str, amount: int, currency: str = "eur") -> dict[str, object]:
    """Pretend to charge a card."""
    return {"id": "ch_1", "amount": amount, "currency": currency}


@traced_llm(model="example-1", provider="example")
def ask(messages: list[dict[str, str]]) -> str:
    """Stand in for a call of a model, so that this runs without a key."""
    return "I will charge " + messages[-1]["content"].rsplit(" ", 1)[-1] + " cents."


def main() -> None:
    """Handle one order."""
    with trace("order-1", external_user_id="user-7", tags=["example"]):
        with step("price the order", input=["tea", "cups"]) as pricing:
            total = sum(look_up_price(item) for item in ("tea", "cups"))
            pricing.set_output(total)
        ask([{"role": "user", "content": f"The order comes to {total}"}])
        charge_card("4242 4242 4242 4242", total)
        with suppress(KeyError):  # the caller gets its error as always; the trace keeps it too
            look_up_price("milk")
    print(flush_sync())


if __name__ == "__main__":
    main()
