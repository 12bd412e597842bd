"""Who sells the answers of a client, as its class and its address tell, and who is paid by the price data."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
from packages import MESSAGES, anthropic, openai
from provider import Provider
from recorded import Recorded
from traced import HERE

from whyops_trace import WhyOps
from whyops_trace._reading.prices import cost_of
from whyops_trace.providers._endpoints import provider_of

#: An address of each seller.
SELLERS = [
    ("anthropic", "https://api.anthropic.com"),
    ("arcee", "https://api.arcee.ai/v1"),
    ("avian", "https://api.avian.io/v1"),
    ("aws", "https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1"),
    ("azure", "https://shop.openai.azure.com/openai/v1"),
    ("azure", "https://shop.services.ai.azure.com/models"),
    ("azure", "https://shop.azure-api.net/v1"),
    ("baseten", "https://inference.baseten.co/v1"),
    ("cerebras", "https://api.cerebras.ai/v1"),
    ("cloudflare", "https://api.cloudflare.com/client/v4/accounts/1f/ai/v1"),
    ("cohere", "https://api.cohere.ai/compatibility/v1"),
    ("cohere", "https://api.cohere.com/v2"),
    ("cursor", "https://api.cursor.com/v1"),
    ("databricks", "https://shop.cloud.databricks.com/serving-endpoints"),
    ("deepseek", "https://api.deepseek.com"),
    ("doubleword", "https://api.doubleword.ai/v1"),
    ("elevenlabs", "https://api.elevenlabs.io/v1"),
    ("elevenlabs", "https://api.eu.residency.elevenlabs.io/v1"),
    ("fireworks", "https://api.fireworks.ai/inference/v1"),
    ("github-copilot", "https://api.githubcopilot.com"),
    ("google", "https://generativelanguage.googleapis.com/v1beta/openai/"),
    ("google", "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/l/endpoints/openapi"),
    ("groq", "https://api.groq.com/openai/v1"),
    ("huggingface_cerebras", "https://router.huggingface.co/cerebras/v1"),
    ("huggingface_fireworks-ai", "https://router.huggingface.co/fireworks-ai/inference/v1"),
    ("huggingface_groq", "https://router.huggingface.co/groq/openai/v1"),
    ("huggingface_hyperbolic", "https://router.huggingface.co/hyperbolic/v1"),
    ("huggingface_nebius", "https://router.huggingface.co/nebius/v1"),
    ("huggingface_novita", "https://router.huggingface.co/novita/v3/openai"),
    ("huggingface_nscale", "https://router.huggingface.co/nscale/v1"),
    ("huggingface_ovhcloud", "https://router.huggingface.co/ovhcloud/v1"),
    ("huggingface_publicai", "https://router.huggingface.co/publicai/v1"),
    ("huggingface_sambanova", "https://router.huggingface.co/sambanova/v1"),
    ("huggingface_together", "https://router.huggingface.co/together/v1"),
    ("meta", "https://api.meta.ai/v1"),
    ("minimax", "https://api.minimax.io/v1"),
    ("minimax", "https://api.minimaxi.com/v1"),
    ("mistral", "https://api.mistral.ai/v1"),
    ("modal", "https://shop--model.modal.run/v1"),
    ("moonshotai", "https://api.moonshot.ai/v1"),
    ("moonshotai", "https://api.moonshot.cn/v1"),
    ("novita", "https://api.novita.ai/v3/openai"),
    ("openai", "https://api.openai.com/v1"),
    ("openai", "https://api.openai.com:443/v1/"),
    ("openrouter", "https://openrouter.ai/api/v1"),
    ("ovhcloud", "https://oai.endpoints.kepler.ai.cloud.ovh.net/v1"),
    ("perplexity", "https://api.perplexity.ai"),
    ("quicksilverpro", "https://api.quicksilverpro.io/v1"),
    ("together", "https://api.together.xyz/v1"),
    ("typesafe", "https://api.typesafe.ai/v1"),
    ("voyageai", "https://api.voyageai.com/v1"),
    ("x-ai", "https://api.x.ai/v1"),
    ("zai", "https://api.z.ai/api/paas/v4"),
    ("zhipuai", "https://open.bigmodel.cn/api/paas/v4"),
]
#: Addresses that nobody knows, or behind which several sell.
OTHERS = [
    ("llm.example.com", "https://llm.example.com/v1"),
    ("localhost", "http://localhost:11434/v1"),
    ("::1", "http://[::1]:8000/v1"),
    ("api.openai.com.example.com", "https://api.openai.com.example.com/v1"),
    ("eu.api.openai.com", "https://eu.api.openai.com/v1"),
    ("router.huggingface.co", "https://router.huggingface.co/v1"),
    ("api.cloudflare.com", "https://api.cloudflare.com/client/v4/user"),
    ("googleapis.com.example.com", "https://googleapis.com.example.com/v1"),
]


@pytest.mark.parametrize(("seller", "url"), [*SELLERS, ("together", "https://api.together.ai/v1"), *OTHERS])
def test_the_address_tells_who_sells(seller: str, url: str) -> None:
    """Many speak as OpenAI or Anthropic do; whoever is not known is named by the host."""
    assert provider_of(openai.OpenAI(api_key="k", base_url=url)) == seller
    assert provider_of(anthropic.Anthropic(api_key="k", base_url=url)) == seller


def test_every_seller_that_the_price_data_knows_is_known() -> None:
    """By the name that it has there, at the address that it has there."""
    data_snapshot = pytest.importorskip("genai_prices.data_snapshot")
    theirs = {one.id: one.api_pattern for one in data_snapshot.get_snapshot().providers}
    del theirs["openai-decisions"]  # another price list of a seller that is known
    matched = {name for name, url in SELLERS if re.match(theirs.get(name, "!"), url)}

    assert theirs.keys() - matched == set()


@pytest.mark.parametrize("model", ["gpt-4o", "openai/gpt-4o", "claude-opus-4-5", "anthropic/claude-opus-4-5"])
@pytest.mark.parametrize("name", [name for name, _ in OTHERS])
def test_a_host_that_nobody_knows_has_no_price(name: str, model: str) -> None:
    """Whichever model it says it serves: its prices are its own."""
    usage = {"promptTokens": 10, "completionTokens": 5, "totalTokens": 15}

    assert cost_of({"model": model, "provider": name, "usage": usage}, "2026-07-23T12:00:00Z") is None


def test_a_seller_that_is_known_has_a_price() -> None:
    """Under the name that its address gives it."""
    provider = provider_of(openai.OpenAI(api_key="k", base_url="https://api.openai.com/v1"))
    about = {
        "model": "gpt-4o",
        "provider": provider,
        "usage": {"promptTokens": 1_000_000, "completionTokens": 0},
    }

    assert cost_of(about, "2026-07-23T12:00:00Z") == Decimal("2.5")


def charge(made: Any) -> None:
    """Ask for a chat completion."""
    made.chat.completions.create(model="gpt-4o", messages=MESSAGES)


@pytest.mark.parametrize("change", ["copy", "with_options"])
def test_a_copy_with_another_address_is_served_by_whoever_is_there(
    events: Recorded, provider: Provider, change: str
) -> None:
    """A copy without one stays with the seller it had."""
    url = provider.openai_url.replace("127.0.0.1", "localhost")
    made = WhyOps().openai(openai.OpenAI(api_key=provider.openai_key, base_url=url, max_retries=0))
    for copied in (getattr(made, change)(timeout=9), getattr(made, change)(base_url=provider.openai_url)):
        charge(copied)
    made.close()

    assert [record["metadata"]["provider"] for record in events.records[1::2]] == ["localhost", HERE]
