"""What is hidden and what is not, and what becomes of records that are too large."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from programs import outline, stored
from secret_forms import ALNUM, TOKENS
from strategies import SECRET, STEADY, hiding_values, json_values, texts

from whyops_trace import WhyOps, traced_tool
from whyops_trace._recording import recorders
from whyops_trace._values.encoding import encoder
from whyops_trace._values.mending import plain
from whyops_trace._values.processor import REDACTED, Redactor
from whyops_trace._values.secrets import names
from whyops_trace._values.truncation import truncated
from whyops_trace.exceptions import ConfigurationError
from whyops_trace.testing import capture_events

hides = Redactor().hides
encode = encoder(hides)

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
    assert hides(key)


def test_hides_a_name_with_spaces() -> None:
    """A key may be a label made for people."""
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
    assert not hides(key)


WIRE = """
    eventType traceId run stepId parentStepId metadata within tool spanId timestamp idempotencyKey agentName
    externalUserId content toolCalls toolResults arguments result error message type status stack thinking signature
    data output startedAt latencyMs outcome messages role function systemPrompt tools params toolName model provider
    usage id finishReason input object embeddingCount firstEmbeddingDimensions encodingFormat tags
"""


@pytest.mark.parametrize("key", WIRE.split())
def test_shows_the_names_of_the_wire_protocol(key: str) -> None:
    """A record keeps its own fields."""
    assert not hides(key)


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
    assert hides(key) is hides(key)


def test_remembers_a_bounded_number_of_keys() -> None:
    """A program that makes up keys does not fill the memory, and gets right answers."""
    remembered = hides.__self__  # type: ignore[attr-defined]

    verdicts = [(hides(f"key{n}"), hides(f"password{n}")) for n in range(names.MAX_REMEMBERED)]

    assert set(verdicts) == {(False, True)}
    assert 0 < len(remembered) <= names.MAX_REMEMBERED


def test_does_not_remember_long_keys() -> None:
    """A key of a megabyte is judged and let go."""
    hides = Redactor().hides

    assert hides("password" * 100_000)
    assert len(hides.__self__) == 0  # type: ignore[attr-defined]


def test_the_mark_of_a_hidden_value() -> None:
    """Readers and tests can rely on what stands in a secret's place."""
    assert REDACTED == "[redacted]"


@STEADY
@given(hiding_values)
def test_a_secret_never_appears(value: Any) -> None:
    """At any depth, inside any kind of object, what stands under the name of a secret is replaced."""
    assert SECRET.encode() not in encode(value)
    assert SECRET not in json.dumps(plain(value, hides))
    assert SECRET.encode() not in encode({(1,): value})


#: What may stand around a token: nothing, punctuation, the end of a line, JSON in a text, a path.
AROUND = {
    "alone": "{}",
    "sentence": "Use {} for it, please.",
    "environment": "export API_KEY={}\nexport OTHER=1",
    "url": "https://example.com/?key={}&page=2",
    "lines": "first\n{}\nlast",
    "tab": "first\t{}\tlast",
    "control": "\x1b{}\x1b[0m",
    "quoted": "the key is '{}'",
    "json": json.dumps({"a": "line\n{}\nline", "b": ["\\{}"]}).replace("{}", "{{}}", 0),
    "json in json": json.dumps(json.dumps({"a": "line\n{}\n"})),
    "windows path": "C:\\{}",
    "path": "/a-long-directory-name/another-one/{}/file",
    "beside other letters": "é{}é",
}


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
def test_a_token_is_replaced_wherever_it_stands(token: str, around: str) -> None:
    """Whatever precedes it, as long as that cannot belong to it, and whatever follows stays."""
    value = {"text": around.replace("{}", token), token: [1, {"deep": token}]}
    without = json.loads(encode(value))

    assert without == {"text": around.replace("{}", REDACTED), REDACTED: [1, {"deep": REDACTED}]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"Authorization: Bearer {ALNUM * 2}.x/y+z==, and", "Authorization: Bearer [redacted], and"),
        (f"bearer {ALNUM}", "bearer [redacted]"),
        ("basic " + base64.b64encode("bob:pässword".encode()).decode(), "basic [redacted]"),
        ("Basic " + base64.b64encode(b"user:passphrase?>").decode() + "\n", "Basic [redacted]\n"),
        (f"token ya29.{ALNUM * 2} expired", "token ya29.[redacted] expired"),
        (f"SG.{ALNUM * 2}.{ALNUM * 2}", "SG.[redacted]"),
        ("postgres://bob:hunter2@db:5432/x", "postgres://bob:[redacted]@db:5432/x"),
        ("redis://:p@ss:word@cache", "redis://:[redacted]@cache"),
        ("a://b:c@d and e://f:g@h", "a://b:[redacted]@d and e://f:[redacted]@h"),
        (f"https://{'ghp_' + ALNUM * 2}@github.com/a/b", "https://[redacted]@github.com/a/b"),
    ],
)
def test_what_stands_around_a_secret_stays(text: str, expected: str) -> None:
    """The scheme, the user and the host tell what happened; only the secret part is replaced."""
    assert json.loads(encode(text)) == expected


@pytest.mark.parametrize(
    "kind", ["PRIVATE KEY", "RSA PRIVATE KEY", "OPENSSH PRIVATE KEY", "PGP PRIVATE KEY BLOCK"]
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", " "])
def test_a_private_key_is_replaced_as_a_whole(kind: str, line_end: str) -> None:
    """Its marks and headers too, in a text and in JSON in a text."""
    lines = [
        f"-----BEGIN {kind}-----",
        "Proc-Type: 4,ENCRYPTED",
        "",
        (ALNUM + "+/") * 3,
        ALNUM + "==",
        f"-----END {kind}-----",
    ]
    key = line_end.join(lines)
    for text in (f"key: {key} end", json.dumps({"key": key})):
        without = json.loads(encode(text))

        assert without == text.replace(json.dumps(key)[1:-1], REDACTED).replace(key, REDACTED)


def test_a_private_key_that_is_cut_off_is_replaced() -> None:
    """A tool that returns the first lines of a file returns half a key."""
    key = f"-----BEGIN PRIVATE KEY-----\n{ALNUM * 3}\n{ALNUM}/+"
    for text in (key, json.dumps({"key": key}), json.dumps(json.dumps([key]))):
        without = json.loads(encode(text))

        assert REDACTED in without
        assert ALNUM not in without
        assert without == text.replace(key, REDACTED) or json.loads(without) in (
            {"key": REDACTED},
            f'["{REDACTED}"]',
        )


KEPT = [
    "0b9fcd2e-0c5a-4c4e-9a4e-6e0d1f9a7c11",
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "call_" + ALNUM,
    "chatcmpl-" + ALNUM,
    "/home/user/src/task-runner/node_modules/eslint-config/sk-index.js",
    "https://example.com:8080/a/very/long/path/to/something?page=2#anchor",
    "mailto://someone@example.com, or http://host:80/@scope/name",
    "2026-11-21T22:30:00.123456+00:00",
    "sk-folding-cube-animation-delay",
    "the basic understanding of responsibilities, bearer of responsibilities",
    "Basic internationalisation",
    "-----BEGIN CERTIFICATE-----\nMIIBszCCARygAwIBAgIUAAAAAAAAAAAAAAAAAAA\n-----END CERTIFICATE-----",
    "grep for -----BEGIN PRIVATE KEY----- in all of the configuration-files-of-this-project",
    "whyops_trace.exporters.local_exporter_of_traces",
    "eyJust-a-long-word-that-is-not-a-token.really",
    "AKIA-and-ASIA-begin-the-ids-of-keys, AKIAIOSFODNN7EXAMPLEX",
    "\\npm_install_everything_that_is_needed",
    base64.b64encode(bytes(range(256)) * 40).decode(),
    "_" * 40,
    "\npm_" + ALNUM * 2,
    12345678901234,
    0.00012345678901234567,
    {"promptTokens": 1234567, "completionTokens": 12, "max_tokens": 100},
]


@pytest.mark.parametrize("value", KEPT, ids=lambda value: str(value)[:30])
def test_what_only_looks_like_a_token_stays(value: Any) -> None:
    """Ids, digests, paths, numbers, names and encoded files are what a trace is read for."""
    assert json.loads(encode({"a": value})) == {"a": value}


_pieces = st.lists(
    texts
    | st.sampled_from(
        [*TOKENS.values(), *AROUND.values(), "\\", "\n", "Bearer ", "Basic ", "://u:p@", "x" * 20]
    )
    | st.sampled_from(
        ["-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "sk-", "npm_", "\\n", "\\u001b"]
    ),
    max_size=8,
).map("".join)


@STEADY
@given(
    st.recursive(
        _pieces | json_values,
        lambda items: st.lists(items, max_size=3) | st.dictionaries(_pieces, items, max_size=3),
    )
)
def test_json_without_secrets_is_json_and_differs_in_their_texts_only(value: Any) -> None:
    """Whatever stands around a secret: escapes, JSON inside of texts, other secrets."""
    assert alike(plain(value, hides), json.loads(encode(value)))


def alike(before: Any, after: Any) -> bool:
    """Tell whether two values are the same but for texts in which something was replaced."""
    if isinstance(before, str):
        return before == after or REDACTED in after
    if isinstance(before, list):
        return len(before) == len(after) and all(map(alike, before, after))
    if isinstance(before, dict):
        changed = [key for key in after if REDACTED in key]
        return bool(changed) or (
            list(before) == list(after) and all(map(alike, before.values(), after.values()))
        )
    return bool(before == after)


@traced_tool
def fetch(url: str, headers: Any = None) -> Any:
    return {"asked": url, "headers": headers}


def test_no_token_reaches_the_disk(tmp_path: Path) -> None:
    """Neither from arguments, results, errors and metadata, nor from what is told of a trace."""
    token = TOKENS["anthropic"]
    with WhyOps(home=tmp_path) as sdk:
        with (
            sdk.trace("t", metadata={"note": token}, tags=[f"x {token}"]) as handle,
            sdk.step(f"plan {token}", input=token),
        ):
            fetch(token, headers=[f"X: {token}"])
            handle.error_sync(f"refused {token}", stack=token)
            handle.user_message_sync([{"role": "user", "content": token}], metadata={"systemPrompt": token})
        files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
        sdk.flush_sync()
        files += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]

    assert any(b"refused [redacted]" in content for content in files)
    assert not any(token.encode() in content for content in files)


def test_patterns_of_the_users_are_replaced_in_every_text_and_key() -> None:
    """Beside the names of keys, in the order given."""
    sdk = WhyOps(redact=["iban", re.compile(r"[\w.]+@example\.com"), re.compile("(?i)project x")])
    value = {
        "iban": "DE02",
        "to": "Ann <ann@example.com>, bob@example.com",
        "ann@example.com": ["Project X", 5, None],
    }
    with capture_events() as events:
        handle = sdk.trace("t", metadata={"for": "ann@example.com"})
        handle.tool_result_sync("mail", value)

    (event,) = events
    assert event["content"] == {
        "toolName": "mail",
        "output": {"iban": REDACTED, "to": f"Ann <{REDACTED}>, {REDACTED}", REDACTED: [REDACTED, 5, None]},
    }
    assert event["metadata"] == {"within": 0, "trace": {"metadata": {"for": REDACTED}}}


def test_a_pattern_that_matches_nothing_at_all_places_replaces_nothing() -> None:
    """An empty match holds no secret."""
    sdk = WhyOps(redact=[re.compile("x*")])
    with capture_events() as events:
        sdk.trace("t").error_sync("axxb")

    assert events[0]["content"]["message"] == f"a{REDACTED}b"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"redact": "iban"}, "['iban']"),
        ({"redact": re.compile("x")}, "must be a list"),
        ({"redact": [re.compile(b"x")]}, "not of bytes"),
        ({"redact": [3]}, "re.compile()"),
        ({"redact_keep": "page_token"}, "['page_token']"),
        ({"max_event_bytes": 9_999}, "WHYOPS_MAX_EVENT_BYTES"),
        ({"max_event_bytes": 1e6}, "must be an int"),
        ({"sample_rate": 1.5}, "WHYOPS_SAMPLE_RATE"),
        ({"sample_rate": True}, "from 0 to 1"),
        ({"sample_rate": float("nan")}, "from 0 to 1"),
    ],
)
def test_what_cannot_be_obeyed_is_refused(arguments: dict[str, Any], words: str) -> None:
    """Where the client is made."""
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        WhyOps(**arguments)


@pytest.mark.parametrize("value", ["9999", "1e6", "much", "-5"])
def test_a_largest_record_from_the_environment_must_be_one(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """The error names the variable."""
    monkeypatch.setenv("WHYOPS_MAX_EVENT_BYTES", value)

    with pytest.raises(ConfigurationError, match="WHYOPS_MAX_EVENT_BYTES"):
        WhyOps()


def test_names_that_the_user_keeps_are_recorded() -> None:
    """A page token opens nothing."""
    sdk = WhyOps(redact_keep=["page_token"])
    with capture_events() as events:
        sdk.trace("t").tool_result_sync("list", {"pageToken": "p2", "token": "t"})

    assert events[0]["content"]["output"] == {"pageToken": "p2", "token": REDACTED}


def test_a_long_text_keeps_its_head_and_tail() -> None:
    """What was cut is said in between, as little as needed."""
    text = "The first words. " + "x" * 1_000_000 + " The end."
    cut = json.loads(truncated(encode(text), 10_000))

    assert re.fullmatch(
        r"The first words\. x+ \.\.\. \[cut 990,\d{3} of 1,000,026 characters\] \.\.\. x+ The end\.", cut
    )
    assert 9_900 < len(cut) < 10_000


def test_the_longest_texts_are_cut_first() -> None:
    """Others stay as they are."""
    value = {"short": "s" * 300, "middle": "m" * 3_000, "a": "a" * 50_000, "b": "b" * 60_000, "n": 5}
    cut = json.loads(truncated(encode(value), 20_000))

    assert {key: cut[key] for key in ("short", "middle", "n")} == {
        key: value[key] for key in ("short", "middle", "n")
    }
    assert abs(len(cut["a"]) - len(cut["b"])) < 10


@pytest.mark.parametrize("character", ["é", "語", "😀", '"', "\x01"])
def test_texts_of_any_script_fit(character: str) -> None:
    """Limits are in bytes, whatever a character takes."""
    encoded = truncated(encode([character * 50_000, "x"]), 20_000)

    assert 5_000 < len(encoded) <= 20_000
    assert json.loads(encoded)[1] == "x"


def test_a_long_list_keeps_its_first_and_last_items() -> None:
    """Where there are no long texts to cut."""
    cut = json.loads(truncated(encode(list(range(100_000))), 10_000))
    (note,) = [item for item in cut if isinstance(item, str)]
    place = cut.index(note)

    assert cut[:place] == list(range(place))
    assert cut[place + 1 :] == list(range(100_000 - len(cut[place + 1 :]), 100_000))
    assert note == f"[cut {100_000 - len(cut) + 1:,} items]"
    assert len(cut) > 500


def test_a_large_object_keeps_its_first_and_last_members() -> None:
    """The last resort."""
    cut = json.loads(truncated(encode({f"k{n}": n for n in range(100_000)}), 10_000))
    names = list(cut)

    assert names[0] == "k0"
    assert names[-1] == "k99999"
    assert cut["..."] == f"[cut {100_000 - len(cut) + 1:,} members]"


def _nested(depth: int) -> Any:
    value: Any = "x" * 50
    for _ in range(depth):
        value = {"a": value, "b": [value] if depth < 12 else 1}
    return value


@STEADY
@given(
    st.recursive(
        st.text(max_size=5).map(lambda text: text * 500) | json_values,
        lambda items: (
            st.lists(items, max_size=4).map(lambda items: items * 40)
            | st.dictionaries(st.text(max_size=400), items, max_size=5)
        ),
        max_leaves=12,
    ),
    st.integers(100, 5_000),
)
@example(_nested(11), 100)
@example(_nested(60), 100)
@example([[[["x" * 400] * 40] * 40] * 10], 120)
@example({"k" * 10_000: 1}, 200)
def test_anything_fits(value: Any, limit: int) -> None:
    """What fits already is not touched, and the same value is always cut alike."""
    encoded = msgspec.json.encode(plain(value, hides))
    cut = truncated(encoded, limit)
    json.loads(cut)

    assert len(cut) <= limit
    assert cut == (encoded if len(encoded) <= limit else truncated(encoded, limit))


def line_lengths(sdk: WhyOps, record: Any) -> list[int]:
    """Return the lengths of the lines that are recorded."""
    lines: list[bytes] = []
    recorders.capture(lines.append)
    try:
        record(sdk)
    finally:
        recorders.capture(None)
    return [len(line) for line in lines]


@pytest.mark.parametrize("name", ["n" * 128, "語" * 128, "\x01" * 128])
def test_no_record_exceeds_the_limit(name: str) -> None:
    """Even where every part of it is as large as it can be."""
    sdk = WhyOps(max_event_bytes=10_000, agent_name=(name * 2)[:255])

    def record(sdk: WhyOps) -> None:
        about = {"note": "z" * 50_000, "more": list(range(5_000))}
        handle = sdk.trace(name, external_user_id=(name * 2)[:255], metadata=about, tags=["t" * 300] * 300)
        handle.user_message_sync(
            [{"role": "user", "content": "x" * 30_000}] * 50,
            metadata={"systemPrompt": "y" * 30_000, "tools": [{"n": n} for n in range(3_000)]},
            span_id=name, idempotency_key=name, external_user_id=(name * 2)[:255],
        )  # fmt: skip

    (length,) = line_lengths(sdk, record)

    assert 1_000 < length <= 10_000


def record_too_much(sdk: WhyOps) -> None:
    with sdk.trace("t") as handle:
        fetch("u" * 100_000, headers={f"h{n}": ["v" * 100] * 500 for n in range(500)})
        handle.user_message_sync([{"role": "user", "content": "c" * 2_000}] * 1_000)
        call: Any = {"id": "1", "function": {"name": "f", "arguments": "{}"}}
        handle.llm_response_sync(
            "m" * 200, "p" * 255, "a" * 100_000, tool_calls=[call] * 2_000, finish_reason="stop",
            usage={"promptTokens": 3, "completionTokens": 4}, latency_ms=5,
        )  # fmt: skip


def test_a_record_that_is_cut_has_what_readers_look_for(tmp_path: Path) -> None:
    """Tools, models, tokens and times stay, each of its type."""
    with capture_events() as events:
        record_too_much(WhyOps(home=tmp_path, max_event_bytes=20_000))
    request, response, message, answer = events
    (call,) = request["content"]["toolCalls"]

    assert call["name"] == request["metadata"]["tool"] == response["metadata"]["tool"] == "fetch"
    assert list(call["arguments"]) == ["url", "headers"]
    assert type(response["metadata"]["latencyMs"]) is int
    assert message["content"]["messages"][0].keys() == {"role", "content"}
    assert answer["metadata"] == {
        "within": 0,
        "model": "m" * 200,
        "provider": "p" * 255,
        "usage": {"promptTokens": 3, "completionTokens": 4},
        "latencyMs": 5,
    }
    assert answer["content"]["finishReason"] == "stop"
    assert answer["content"]["toolCalls"][0] == {"id": "1", "function": {"name": "f", "arguments": "{}"}}


def test_a_trace_of_records_that_are_cut_is_shown_as_any_other(tmp_path: Path) -> None:
    """Notes stand where messages and calls are expected, and mislead no reader."""
    with WhyOps(home=tmp_path, max_event_bytes=20_000) as sdk:
        record_too_much(sdk)

    assert outline(stored(tmp_path, "t")) == [(0, "tool", "fetch", "ok"), (0, "llm", "m" * 200, "ok")]
