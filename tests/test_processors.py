"""What is hidden, and what is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from strategies import SECRET, STEADY, hiding_values, texts

from whyops_trace import processors
from whyops_trace._json import encode, plain
from whyops_trace.processors import REDACTED, Redactor

HIDDEN = """
    password passwd passphrase pwd PASSWORD userPassword password_hash db-password DB_PWD
    secret client_secret secretKey aws.secret.access.key SECRETS secret_array
    apikey api_key apiKey API-KEY x-api-key openai.api.key accessKey access_key_id private_key signingKey
    authorization Authorization Proxy-Authorization bearer bearerAuth cookie Set-Cookie cookie_jar cookies_accepted
    credential credentials awsCredentials cardNumber card_number creditCard CREDIT_CARD_NO cvv CVV2 cvc cardCvc
    ssn SSN user_ssn userSsn ssnLast4
    token TOKEN access_token refreshToken authToken x-csrf-token csrf_token id.token token2 HTTPToken helpertoken
    accessTokens refresh_tokens password_per_token
"""


@pytest.mark.parametrize("key", HIDDEN.split())
def test_hides_the_names_of_secrets(key: str) -> None:
    """Case and separators make no difference, and a longer name that contains a secret's is one too."""
    assert Redactor().hides(key)


def test_hides_a_name_with_spaces() -> None:
    """A key may be a label made for people."""
    hides = Redactor().hides

    assert hides("Card Number")
    assert hides("API key")


SHOWN = """
    tokens max_tokens maxTokens promptTokens completion_tokens totalTokens cacheReadTokens tokenizer token_count
    tokenType token_type tokenization cost_per_token timeToFirstToken eos_token PAD_TOKEN
    secretary secretaries secretaryName author authority authorId className businessName session key primary_key
    keyboard passenger compass name query amount currency city bypass pin
"""


@pytest.mark.parametrize("key", SHOWN.split())
def test_shows_names_that_only_look_like_a_secret(key: str) -> None:
    """Counts of tokens and innocent words that share letters with a secret stay."""
    assert not Redactor().hides(key)


WIRE = """
    eventType traceId run stepId parentStepId metadata within tool spanId timestamp idempotencyKey agentName
    externalUserId content toolCalls toolResults arguments result error message type status stack thinking signature
    data output startedAt latencyMs outcome messages role function systemPrompt tools params toolName model provider
    usage id finishReason input object embeddingCount firstEmbeddingDimensions encodingFormat tags
"""


@pytest.mark.parametrize("key", WIRE.split())
def test_shows_the_names_of_the_wire_protocol(key: str) -> None:
    """A record keeps its own fields."""
    assert not Redactor().hides(key)


def test_extra_names_are_hidden_exactly() -> None:
    """A name of the user's is compared without case and separators, but not looked for inside others."""
    hides = Redactor(extra=["Customer_Name"]).hides

    assert hides("customerName")
    assert hides("CUSTOMER-NAME")
    assert hides("customer name")
    assert not hides("customerNames")
    assert not hides("name")
    assert hides("password")


def test_kept_names_are_never_hidden() -> None:
    """What the user keeps stays, even if it is also named as extra."""
    hides = Redactor(extra=["session"], keep=["page_token", "SESSION"]).hides

    assert not hides("pageToken")
    assert not hides("session")
    assert hides("nextPageToken")


@STEADY
@given(texts)
@example("")
@example("_")
def test_every_key_has_a_lasting_verdict(key: str) -> None:
    """Any text can be a key, and the second answer is the first."""
    hides = Redactor().hides

    assert hides(key) is hides(key)


def test_remembers_a_bounded_number_of_keys() -> None:
    """A program that makes up keys does not fill the memory, and gets right answers."""
    hides = Redactor().hides
    remembered = hides.__self__

    verdicts = [(hides(f"key{n}"), hides(f"password{n}")) for n in range(processors.MAX_REMEMBERED)]

    assert set(verdicts) == {(False, True)}
    assert 0 < len(remembered) <= processors.MAX_REMEMBERED


def test_does_not_remember_long_keys() -> None:
    """A key of a megabyte is judged and let go."""
    hides = Redactor().hides

    assert hides("password" * 100_000)
    assert len(hides.__self__) == 0


def test_the_mark_of_a_hidden_value() -> None:
    """Readers and tests can rely on what stands in a secret's place."""
    assert REDACTED == "[redacted]"


@STEADY
@given(hiding_values)
def test_a_secret_never_appears(value: Any) -> None:
    """At any depth, inside any kind of object, what stands under the name of a secret is replaced."""
    hides = Redactor().hides

    assert SECRET.encode() not in encode(value, hides)
    assert SECRET not in json.dumps(plain(value, hides))
    assert SECRET.encode() not in encode({(1,): value}, hides)
