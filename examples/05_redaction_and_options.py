"""What is recorded of a call is yours to say. Then: whyops-trace show login-1."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from whyops_trace import WhyOps, traced_embedding, traced_llm, traced_tool

# Values under keys such as password, api_key and access_token are never recorded; "iban" is added here.
sdk = WhyOps(agent_name="options", redact=["iban"], tracing="local")


@traced_tool
def log_in(user: str, password: str) -> dict[str, str]:
    """Return a session; neither the password nor the token is recorded."""
    return {"user": user, "access_token": f"secret-of-{user}"}


@traced_tool(name="pay", redact=["pin"], metadata={"team": "payments"})
def transfer(account: dict[str, str], cents: int, pin: str) -> str:
    """Send money; the account's iban is hidden by the client, the pin by the decorator."""
    return "sent"


@traced_tool(capture_input=["path"], capture_output=False)
def read_scan(path: str, options: dict[str, Any]) -> bytes:
    """Return a large file, of which only the path is recorded."""
    return b"\0" * 1_000_000


@traced_tool(accumulate=len)
def list_pages(count: int) -> Iterator[str]:
    """Yield pages; what is recorded is how many there were."""
    yield from (f"page {number}" for number in range(count))


@traced_llm(model="example-1", extract=lambda reply: {"content": reply["said"], "usage": reply["counts"]})
def ask(prompt: str) -> dict[str, Any]:
    """Return an answer in a shape of its own; extract says what of it to record."""
    return {"said": "Done.", "counts": {"prompt_tokens": 12, "completion_tokens": 2}, "raw": object()}


@traced_embedding(model="embed-1", provider="example")
def embed(texts: list[str]) -> list[list[float]]:
    """Return a vector for each text; they are counted, not recorded."""
    return [[0.0] * 8 for _ in texts]


if __name__ == "__main__":
    with sdk.trace("login-1"):
        log_in("mia", "hunter2")
        transfer({"iban": "CH00 1234"}, 500, "9876")
        print(len(read_scan("scan.png", {"dpi": 300})), list(list_pages(2)))
        print(ask("Summarise the scan."), len(embed(["a", "b"])))
    print(sdk.close_sync())
