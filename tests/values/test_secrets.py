"""Secrets with a name in texts, pairs and members, secrets of a known form, and what only looks like one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from secret_forms import INNOCENT, WILD
from strategies import STEADY, json_values, texts

from whyops_trace import WhyOps, traced_tool
from whyops_trace._values.processor import REDACTED, Processor
from whyops_trace._values.secrets.forms import FORMS, SHAPES
from whyops_trace.testing import capture_events

encode = Processor(max_event_bytes=1_000_000, sample_rate=1.0).encode
SECRET = "q1w2e3r4"


@pytest.mark.parametrize(("secret", "around"), [form[1:] for form in WILD], ids=[form[0] for form in WILD])
def test_a_secret_of_the_real_world_is_hidden_in_a_text(secret: str, around: str) -> None:
    """With what stands around it in logs, code, commands and addresses, which stays."""
    text = around.replace("{}", secret)
    after = json.loads(encode({"text": text}))["text"]

    assert REDACTED in after
    assert secret[len(secret) // 2 :] not in after
    assert after.startswith(around.partition("{}")[0])


@pytest.mark.parametrize("text", INNOCENT, ids=[text[:30] for text in INNOCENT])
def test_an_innocent_text_stays(text: str) -> None:
    """Hashes, ids, counts, code, placeholders, and prose about secrets."""
    assert json.loads(encode({"text": text})) == {"text": text}
    assert json.loads(encode([json.dumps({"text": text})])) == [json.dumps({"text": text})]


@dataclasses.dataclass
class Header:
    name: str
    value: Any


class Client:
    def __init__(self) -> None:
        self.user = "ann"
        self.auth = SECRET


NAMED: dict[str, Any] = {
    "dict": {"password": SECRET},
    "auth": {"auth": SECRET},
    "pass of a database": {"db_pass": SECRET},
    "account key": {"AccountKey": SECRET},
    "social security number": {"social_security_number": SECRET},
    "list of pairs": [("Authorization", SECRET), ("Accept", "*/*")],
    "list of pairs of bytes": [(b"cookie", SECRET.encode()), (b"accept", b"*/*")],
    "list of lists": [["x-api-key", SECRET]],
    "a pair": {"header": ("X-Api-Key", SECRET)},
    "name and value": [{"name": "api_key", "value": SECRET}],
    "key and value": {"Key": "DB_PASSWORD", "Value": SECRET},
    "value and name": {"value": SECRET, "name": "secret"},
    "dataclass": Header("x-auth-token", SECRET),
    "object": Client(),
    "headers of a dict": {"headers": {"Set-Cookie": SECRET}},
    "text of JSON": json.dumps({"user": "ann", "password": SECRET}),
    "text of JSON, compact": json.dumps({"user": "ann", "password": SECRET}, separators=(",", ":")),
    "text of JSON, indented": json.dumps({"user": "ann", "password": SECRET}, indent=2),
    "text of JSON in JSON": json.dumps({"answer": json.dumps({"password": SECRET, "n": 1})}),
    "text of JSON in JSON in JSON": json.dumps([json.dumps({"a": json.dumps({"password": SECRET})})]),
    "text of JSON with a list": json.dumps(
        {"tokens": 5, "api_keys": {"apiKey": [SECRET, "]", SECRET + "x"]}}
    ),
    "text of JSON with an object": json.dumps({"credentials": {"a": {"b": "}"}, "c": SECRET}}),
    "text of JSON with a name and value": json.dumps([{"name": "password", "value": SECRET}]),
    "text of JSON with pairs": json.dumps([["Authorization", SECRET], ["Accept", "*/*"]]),
    "JSON in prose": f'It said {{"token": "{SECRET}", "ok": true}}, and no more.',
    "text of a dict": str({"user": "ann", "password": SECRET, "n": None}),
    "text of pairs": str([("Authorization", SECRET)]),
    "text of pairs of bytes": str([(b"authorization", SECRET.encode())]),
    "environment": f"HOME=/root\nDB_PASSWORD={SECRET}\nPATH=/bin",
    "environment with export": f'export API_KEY="{SECRET}"',
    "environment in lower case": f"db_password={SECRET}\n",
    "environment of Python": f'os.environ["API_KEY"] = "{SECRET}"',
    "query": f"https://example.com/?a=1&access_token={SECRET}&b=2",
    "query of letters": {"query_string": b"api_key=QUERY" + SECRET.encode()},
    "signed address": f"https://example.com/?sig={SECRET * 3}",
    "form": f"user=ann&password={SECRET}",
    "flag": f"deploy --token {SECRET} --verbose",
    "flag with equals": f"deploy --token={SECRET}",
    "flag behind a long word of dashes": f"run --{'a-' * 40} --token {SECRET}",
    "flag inside of a word": f"run x--token {SECRET}",
    "element": f"<config><user>ada</user><token>{SECRET}</token></config>",
    "query in a query": f"https://h/login?next=%2Fstart%3Fapi_token%3D{SECRET}",
    "dense text": f"{'a:1 ' * 9_000}token: {SECRET} {'b:2 ' * 9_000}",
    "dense text of equals signs": f"{'a=1 ' * 9_000}token={SECRET} {'b=2 ' * 9_000}",
    "flag in a list": ["deploy", "--token", SECRET],
    "flag in a text of a list": str(["deploy", "--token", SECRET]),
    "user of curl": f"curl -u ann:{SECRET} https://example.com",
    "header": f"GET / HTTP/1.1\r\nX-Api-Key: {SECRET}\r\nAccept: */*",
    "header of curl": f"curl -H 'X-Api-Key:{SECRET}' https://example.com",
    "cookie": f"Cookie: theme=dark; session={SECRET}",
    "digest": f'Authorization: Digest username="ann", response="{SECRET}"',
    "other authorization": f"authorization: Token {SECRET}",
    "configuration": f"password: {SECRET}\nuser: ann",
    "configuration with quotes": f"password: '{SECRET}'",
    "line after another": f"first\npassword = '{SECRET}'\nlast",
    "two words": f"API key: {SECRET}{SECRET}",
    "connection": f"Server=db;Uid=ann;Pwd={SECRET};",
}


@pytest.mark.parametrize("value", NAMED.values(), ids=NAMED)
def test_a_secret_with_a_name_is_hidden(value: Any) -> None:
    """Wherever a value can have a name."""
    assert SECRET.encode() not in encode(value)
    assert SECRET.encode() not in encode({"result": [value]})
    assert REDACTED.encode() in encode(value)


def test_json_in_a_text_stays_json() -> None:
    """With all that has no secret's name, and what is no text becomes one."""
    value = {
        "user": "ann",
        "pin": 5,
        "password": 'a"b\\',
        "cvv": 123,
        "n": [1, {"token": None, "secret": [1, "]"]}],
        "z": 1,
    }
    expected = {
        "user": "ann", "pin": 5, "password": REDACTED, "cvv": REDACTED,
        "n": [1, {"token": None, "secret": REDACTED}], "z": 1,
    }  # fmt: skip
    text = json.dumps(value)

    assert json.loads(json.loads(encode(text))) == expected
    assert json.loads(json.loads(json.loads(encode(json.dumps(text))))) == expected
    assert json.loads(json.loads(encode(json.dumps(value, separators=(",", ":"))))) == expected


def test_the_probabilities_of_tokens_stay() -> None:
    """A token that a model wrote is no secret, unlike any other."""
    answer = {
        "logprobs": {
            "content": [{"token": " the", "logprob": -0.5, "top_logprobs": [{"token": "a", "logprob": -1}]}]
        }
    }

    assert json.loads(encode(answer)) == answer
    assert json.loads(encode([{1, 2}, answer]))[1] == answer
    assert json.loads(encode({"token": "x"})) == {"token": REDACTED}


def test_lists_of_names_stay() -> None:
    """Two words in a list are no pair."""
    value = {"required": ["token", "amount"], "tags": ["password", "reset"]}

    assert json.loads(encode(value)) == value


@pytest.mark.parametrize("value", [True, None])
def test_a_yes_or_no_stays_under_any_name(value: object) -> None:
    """In pairs and members as in keys."""
    values = [["password", value], ("password", value), {"name": "password", "value": value}]

    assert json.loads(encode(values)) == json.loads(json.dumps(values))


def test_names_of_the_users_count_in_texts() -> None:
    """As those that are known, and names to keep are kept."""
    sdk = WhyOps(redact=["Customer-Iban"], redact_keep=["page_token"])
    with capture_events() as events:
        sdk.trace("t").tool_result_sync(
            "list", ["customer_iban: DE0212345678", f"?page_token=a9b8c7d6&token={SECRET}"]
        )

    assert events[0]["content"]["output"] == [
        f"customer_iban: {REDACTED}",
        f"?page_token=a9b8c7d6&token={REDACTED}",
    ]


def test_metadata_of_a_decorator_is_looked_at() -> None:
    """By the names of its keys."""

    @traced_tool(metadata={"api_key": SECRET, "team": "search"})
    def look() -> None: ...

    with capture_events() as events:
        look()

    assert events[0]["metadata"]["api_key"] == REDACTED
    assert events[0]["metadata"]["team"] == "search"


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.tuples(json_values, inner).map(list)
        | st.builds(lambda key, value: {key: value}, st.sampled_from(["a", "text", "ä", 'x"y', "\\"]), inner)
        | inner.filter(_is_plain).map(json.dumps)
        | inner.filter(_is_plain).map(
            lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        )
    )


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (TypeError, ValueError):
        return False
    return "NaN" not in json.dumps(value) and "Infinity" not in json.dumps(value)


_planted = st.sampled_from(
    [
        {"password": SECRET},
        {"token": [SECRET, {"a": SECRET}]},
        {"api_key": f'"{SECRET}\\'},
        {"secret": {"x": f"}}{SECRET}]"}},
        {"name": "x-api-key", "value": SECRET},
        [["Authorization", SECRET]],
        f"PASSWORD={SECRET}",
        f"https://h/?token={SECRET}&x=1",
        f"Cookie: a={SECRET}",
        f"say 'password': '{SECRET}'",
        f'{{"password": "{SECRET}"}}',
    ]
)


@STEADY
@given(st.recursive(_planted, _nested, max_leaves=3))
def test_a_planted_secret_never_appears(value: Any) -> None:
    """At any depth of lists, objects and texts of JSON, and what is written is JSON."""
    json_bytes = encode(value)
    json.loads(json_bytes)

    assert SECRET.encode() not in json_bytes


_bits = st.lists(
    texts
    | st.sampled_from(
        [
            '"',
            '\\"',
            '\\\\"',
            '\\\\\\"',
            "\\",
            "'",
            "`",
            ":",
            ": ",
            "=",
            "{",
            "}",
            "[",
            "]",
            "(",
            ",",
            ", ",
            "\n",
            " ",
        ]
    )
    | st.sampled_from(
        ['"password"', "'token'", "password", "cookie", "Authorization", "--token ", "a=b", "value", '"name"']
    )
    | st.sampled_from(["true", "12", SECRET, "Digest ", "a1b2c3d4e5", "sk-", "curl -u a:"]),
    max_size=14,
).map("".join)


@STEADY
@given(_bits, st.integers(0, 3))
def test_whatever_quotes_and_escapes_a_text_has_it_stays_a_text(text: str, depth: int) -> None:
    """And JSON around it stays JSON at each level."""
    value: Any = text
    for level in range(depth):
        value = json.dumps({"a": value, "n": level})
    after = json.loads(encode({"text": value, "more": [value]}))

    assert after.keys() == {"text", "more"}
    value = after["text"]
    for level in reversed(range(depth)):
        value = json.loads(value)
        assert value["n"] == level
        value = value["a"]


def test_a_text_full_of_secrets_is_hidden_whole() -> None:
    """To look at each would hold up the call."""
    assert json.loads(encode("password=hunter22 " * 5_000)) == REDACTED
    assert json.loads(encode({"text": "token: 'a1 " * 20_000})) == {"...": REDACTED}
    assert json.loads(encode(["AKIA" + "A1B2C3D4E5F6G7H8 "] * 2_000)) == [REDACTED]


def test_a_listing_of_many_names_stays_but_for_its_secrets() -> None:
    """Names that differ in their digits alone, and texts that are dense with signs."""
    lines = [f"SERVICE_{number}_HOST=10.0.0.{number}" for number in range(2_000)]
    dense = "a=b c=d " * 50
    text = "\n".join([*lines, f"db2_password={SECRET}", *lines])

    assert json.loads(encode([text, dense])) == [text.replace(SECRET, REDACTED), dense]
    assert json.loads(encode(dense + f"db_password={SECRET}")) == f"{dense}db_password={REDACTED}"
    assert json.loads(encode(dense + f"MY2TOKEN={SECRET}")) == f"{dense}MY2TOKEN={REDACTED}"


def test_the_documentation_names_every_form() -> None:
    """With its issuer and what it begins with."""
    page = (Path(__file__).parents[2] / "docs/reference/secrets.md").read_text()

    for form in FORMS:
        assert form.issuer in page
        assert all(f"`{start}`" in page for start in form.starts.split())
    assert all(shape.title in page for shape in SHAPES)


def test_ids_and_names_are_looked_at(tmp_path: Path) -> None:
    """Those of traces, users, agents, tools and events; a part of a hash keeps them apart."""
    token = next(secret for name, secret, _ in WILD if name == "github")

    @traced_tool(name=f"use {token}")
    def use() -> None: ...

    with WhyOps(agent_name=f"agent {token}", home=tmp_path) as sdk:
        with (
            sdk.trace(f"t {token}", external_user_id=token, tags=[token]) as handle,
            sdk.step(f"plan {token}"),
        ):
            use()
            handle.error_sync("refused", span_id=token, idempotency_key=token, external_user_id=token + "x")
        files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
        sdk.flush_sync()
        files += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]

    assert any(b"refused" in content for content in files)
    assert not any(token.encode() in content for content in files)
    assert sdk.trace(token).id == sdk.trace(token).id != sdk.trace(token + "y").id
