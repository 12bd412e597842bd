"""Secrets in what tools return: tables, files of settings, commands and their output, sentences."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from secret_carriers import CARRIERS, PASSWORD, SPEAKING
from strategies import STEADY

from whyops_trace._values.processor import REDACTED, Processor

encode = Processor(max_event_bytes=1_000_000, sample_rate=1.0).encode


@pytest.mark.parametrize(("secret", "around"), CARRIERS.values(), ids=CARRIERS)
def test_a_secret_is_hidden_in_what_carries_it(secret: str, around: str) -> None:
    """Alone, between other lines, and in JSON in a text."""
    text = around.replace("{}", secret)
    lines = f"It says:\n\n{text}\n\nThat is all."
    inner = json.dumps({"out": text}, ensure_ascii=False)
    results = [json.loads(encode(each)) for each in (text, {"stdout": lines}, [inner])]

    assert [secret in json.dumps(result) for result in results] == [False] * 3
    assert REDACTED in json.loads(results[2][0])["out"]


@pytest.mark.parametrize("text", SPEAKING)
def test_a_text_that_speaks_of_secrets_stays(text: str) -> None:
    """Prose, types, forms, names of files and of columns, and other options of commands."""
    assert json.loads(encode({"text": text})) == {"text": text}


def test_a_column_of_secrets_is_hidden_in_each_row() -> None:
    """What stands in the other columns stays, and so does what follows the table."""
    rows = [f"ann{number},{PASSWORD}{number},{number}" for number in range(50)]
    text = "\n".join(["user,password,logins", *rows, "", "50 rows, none,empty"])
    hidden = "\n".join(f"ann{number},{REDACTED},{number}" for number in range(50))

    assert json.loads(encode(text)) == f"user,password,logins\n{hidden}\n\n50 rows, none,empty"


def test_the_data_of_a_secret_of_kubernetes_is_hidden_under_any_name() -> None:
    """In YAML and JSON; that of a ConfigMap stays."""
    yaml = "apiVersion: v1\ndata:\n  config.json: eyJ4Ijoi\nkind: {}\nmetadata:\n  name: db\n"
    text = json.dumps({"kind": "Secret", "data": {"url": "cG9zdGdyZXM="}, "metadata": {"name": "db"}})

    assert json.loads(encode(yaml.format("ConfigMap"))) == yaml.format("ConfigMap")
    assert "eyJ4Ijoi" not in encode(yaml.format("Secret")).decode()
    assert "cG9zdGdyZXM" not in encode(text).decode()


DENSE = {
    "documentation": "- `password`: the password of user {0}.\n- `api_key: str` is a key, `token`: one of {0}.\n",
    "code": "def login{0}(password: str, token: str | None = None):\n    password = password or get_password{0}()\n",
    "sample of an environment": "SERVICE_{0}_PASSWORD=changeme\nSERVICE_{0}_TOKEN=<token>\n",
    "table": "| password | string | at least {0} characters |\n| token | text{0} | optional |\n",
    "log": "INFO token_count={0} user=u{0} path=/api/v1/tokens/{0} took={0}ms auth: none\n",
    "list of secrets": "db-secret-{0}   Opaque   {0}   {0}d\nsecret/x{0} configured\n",
}  # fmt: skip


@pytest.mark.parametrize("line", DENSE.values(), ids=DENSE)
def test_a_long_text_that_speaks_of_secrets_in_each_line_stays(line: str) -> None:
    """Only the secret in its middle is hidden."""
    lines = "".join(line.replace("{0}", str(number)) for number in range(1_200))
    before, after = f"{lines}\ndb_password={PASSWORD}\n{lines}", f"{lines}\ndb_password={REDACTED}\n{lines}"

    assert json.loads(encode(before)) == after


PIECES = [
    "password", "Password is ", "token ", "API key: ", "| ", "|", "\n", "\t", ",", "```", "`", "'", '"', "\\", "\u0001",
    "é", "</b>", "<b>", ' value="', '"\r\n\r\n', "user,password\n", "kind: Secret\n", "data:\n  a: ", " -p", "mysql",
    "sshpass", "echo ", "| docker login --password-stdin", "IDENTIFIED BY ", PASSWORD, "hunter2", "\U0001f600", "-> ",
    " (", "{", "}", "</key><string>",
]  # fmt: skip


@STEADY
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join), st.integers(0, 3))
def test_json_stays_json_whatever_a_secret_stands_in(text: str, depth: int) -> None:
    """At any depth of JSON in a text, and after a second pass."""
    for _ in range(depth):
        text = json.dumps({"text": text}, ensure_ascii=depth % 2 == 0)
    once = encode([text, {"user": text}])

    assert isinstance(json.loads(once), list)
    assert isinstance(json.loads(encode(json.loads(once))), list)
