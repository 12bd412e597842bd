"""The verdicts of results on their calls: failed, nothing there, or nothing said."""

from __future__ import annotations

import time
from typing import Any

import pytest

from whyops_trace._reading.verdict import verdict, verdict_of

FAILED: list[Any] = [
    # Members
    {"error": "not enough money on it"},
    {"error": True, "text": "no"},
    {"error": {"message": "no"}, "code": 402},
    {"errors": [{"message": "field 'x' is unknown"}], "data": None},
    {"isError": True, "content": [{"type": "text", "text": "no such order"}]},
    {"is_error": True, "content": "no such order"},
    {"success": False, "message": "no such order"},
    {"ok": False, "reason": "no such order"},
    {"status": "error", "message": "no such order"},
    {"status": "denied", "reason": "over the limit"},
    {"type": "tool", "status": "error", "content": "no such order", "tool_call_id": "c1"},
    {"returncode": 1, "output": "bash: foo: command not found"},
    {"exit_code": 127, "stdout": "", "stderr": "sh: 1: foo: not found"},
    {"stdout": "", "stderr": "fatal: not a git repository"},
    {"status_code": 500, "body": "Internal Server Error"},
    {"statusCode": 404, "message": "Not Found"},
    {"code": 429, "message": "slow down"},
    {"result": "Error: not enough money on it"},
    {"content": [{"type": "text", "text": "Error executing tool pay: card declined"}], "isError": False},
    {"result": '{"success": false, "message": "no such order"}'},
    [{"type": "text", "text": "Error: no such order"}],
    {"result": {"content": [{"type": "text", "text": '{"status": 400, "message": "no such field"}'}]}},
    # Texts
    "<returncode>127</returncode>\n<output>\n/bin/sh: 1: curl: not found\n</output>",
    "=== STDOUT ===\nloading\n=== EXECUTION INFO ===\nReturn code: 1\nExecution time: 0.1 seconds",
    "Error exporting logs to the table: unexpected keyword argument 'table_id'",
    "Error uploading file to bucket 'cases': no such file",
    "Security violation: Command 'python3' is not allowed",
    "The last command <command>sleep 90</command> timed out and has been killed.\nThe output was:\n",
    "Error: not enough money on it",
    "Error: no such file",
    "Error: 404 Not Found",
    "ERROR - no such order",
    "Tool error: no such order",
    "HTTP error 500: down",
    "Error (402): payment required",
    "Error code: 429 - Too many requests",
    "Payment failed: card declined",
    "Payment failed.",
    "Login failed due to a wrong password",
    "The request failed with status code 503",
    "error executing tool pay: no such card",
    "An error occurred while reading the page",
    "An unexpected error occurred",
    "Something went wrong, try again",
    "ValueError: bad",
    "java.lang.NullPointerException: null",
    "httpx.ReadTimeout: timed out",
    "Uncaught TypeError: x is not a function",
    "Traceback (most recent call last):\n  File \"x.py\", line 1\nValueError: bad",
    "Loading the data\nTraceback (most recent call last):\n  File \"x.py\", line 1, in f\nKeyError: 'a'",
    "[Errno 2] No such file or directory: 'a.csv'",
    "ENOENT: no such file or directory, open 'a.json'",
    "404 Not Found",
    "HTTP 500",
    "HTTP/1.1 403 Forbidden",
    "Status: 503 Service Unavailable",
    "403 Client Error: Forbidden for url: https://a.example/",
    "status code: 500",
    "Failed to fetch the page",
    "Unable to open the file",
    "Could not connect to the host",
    "Sorry, I couldn't reach the site",
    "Request timed out",
    "Timeout: no answer in 30 s",
    "Permission denied",
    "Access denied for user 'a'",
    "Connection refused",
    "Rate limit exceeded, retry in 20 s",
    "Unauthorized",
    "3 validation errors for Order\namount\n  field required",
    "Input validation error: 'x' is a required property",
    "Invalid arguments for tool pay",
    "Invalid API key provided",
    "Missing required parameter 'id'",
    "Unknown tool: pay",
    "Tool 'pay' not found",
    "File not found: a.txt",
    "Your proposed edit has introduced new syntax error(s). Please read this error message carefully",
    "The edit was not applied, old_str did not appear in a.py",
    "No replacement was performed",
    "Your request was rejected by the policy",
    "bash: foo: command not found",
    "/bin/sh: 1: foo: not found",
    "ls: cannot access 'a': No such file or directory",
    "cat: a.txt: No such file or directory",
    "<error>no such order</error>",
    "\u274c no such order",
    "\x1b[0;31mERROR:\x1b[0m format is not available",
    "npm ERR! missing script: build",
    "fatal: not a git repository",
    "Process exited with code 2",
    "exitcode: 1 (execution failed)\nCode output: no module",
    "exitcode: 0 (execution succeeded)\nCode output: Error: no such table",
    "The script ran, then exited with Unix exit code: 1\nIts output was:\nno",
    "collected 3 items\n...\nmake: *** [test] Error 2\n\nCommand exited with exit code 2",
    "panic: runtime error: index out of range",
    "Segmentation fault (core dumped)",
    "make: *** [Makefile:3: all] Error 2",
    'Exception in thread "main" java.lang.NullPointerException',
    "curl: (6) Could not resolve host: shop.example",
    "error TS2304: Cannot find name 'total'.",
    "Insufficient funds on the card.",
    "[ERROR] disk full",
    "psql: error: connection to server failed: FATAL: no such role",
    "E: Unable to locate package jq",
    "<!DOCTYPE html>\n<html lang=en>\n<head><title>502 Bad Gateway</title></head>",
    "I/O error",
    "No permission to read the file",
    "Not authenticated",
    "FAILED tests/test_cart.py::test_total - assert 1 == 2",
    {"success": "false", "message": "out of stock"},
    {"detail": "Not authenticated"},
    {"detail": [{"loc": ["body", "amount"], "msg": "Field required", "type": "missing"}]},
    {"type": "error", "message": "overloaded"},
    "You do not have permission to read this file.",
    "\u274c payment",
]  # fmt: skip

SAYS_NOTHING: list[Any] = [
    None,
    3,
    0,
    True,
    False,
    "ok",
    "255.0",
    "Timeout is set to 30 s",
    "\u274c vegan\n\u2705 vegetarian",
    "The first expedition failed in 1912. " + 12 * "Another one set out for the pole soon. ",
    "Transfer successful",
    {"result": 5},
    {"success": True, "message": "Error: is a word in this title"},
    {"error": None, "data": {"id": 1}},
    {"error": 0.03, "slope": 1.5},
    {"error": "none", "rows": [1]},
    {"errors": [], "warnings": ["x"], "rows": [1]},
    {"errors": 3, "warnings": 2, "file": "a.py"},
    {"order": 7, "status": "rejected"},
    {"status": 404, "orders": 3, "open": 2},
    {"status": "delivered"},
    {"exit_code": 0, "stderr": "Cloning into 'a'...", "stdout": ""},
    {"isError": False, "content": [{"type": "text", "text": "shipped"}]},
    [1, 2, 3],
    [{"type": "image", "data": "aa"}],
    [{"type": "text", "text": "Error: this is a caption"}, {"type": "image", "data": "aa"}],
    "Error rate: 3 %",
    "Standard error: 0.03",
    "Mean squared error: 12.5",
    "Error: none",
    "Error: 0",
    "Errors: 0, warnings: 2",
    "Failed: 0, passed: 12",
    "failed tests: 0",
    "No errors found in the file",
    "No error: everything is in place",
    "Error handling in Python\n\nAn exception is raised where a function cannot go on",
    "The failure of the bank led to a crisis.",
    "Timeouts and retries: a guide",
    "Exception handling is explained in chapter 3",
    "Syntax errors: 0",
    "The exit code was 0",
    "exitcode: 0 (execution succeeded)\nCode output: 732050\n",
    "<returncode>0</returncode>\n<output>\nmamba not found, conda is used\n</output>",
    "GET /orders\nThe server will return code 404 where there is no such order, and return code: 200 else.",
    "Tests for login failed and passed were listed below: 3 of 9",
    "400 Main Street, Springfield",
    "500 results for shoes",
    "Forbidden Planet (1956) is a film",
    "Failed to deliver: 0 of 12 messages",
    "<html><head><title>Error handling in JavaScript</title></head>",
    "<html><head><title>500 Days of Summer</title></head>",
    "[error-prone] is a checker of Java",
    "Note: errors are logged in the file",
    {"detail": "Two seats by the window"},
    {"detail": [{"id": 7, "msg": "shipped"}]},
    {"type": "error", "message": "overloaded", "id": 7, "at": "2026-11-20"},
    "Invalid Dates is the name of a band",
    "The order was rejected by the seller",
    "Search Result 1:\nHow to fix 'Error: no such file'",
    "Function start not found! Instead, here is the listing of the entry point: push rbp",
]

EMPTY: list[Any] = [
    "",
    "  \n",
    [],
    {},
    {"result": ""},
    {"result": []},
    {"rows": [], "count": 0},
    {"results": [], "query": "shoes", "total": 0},
    "[]",
    "{}",
    "None",
    "No results found.",
    "No results found for 'red shoes'",
    "0 results",
    "There are no matching records.",
    "data not found.",
    "Order 17 not found",
    "Nothing found",
    "Did not find any pages",
    "exitcode: 0 (execution succeeded)\nCode output: ",
    "exitcode: 0 (execution succeeded)\nCode output: []\n",
    "The longest word found is: ",
    "<returncode>0</returncode>\n<output>\n</output>",
    "Could not find [Antic]. Similar: ['Alex Antic', 'Atari 8-bit family']",
    "Could not find 'Antic'. Did you mean 'Antic (magazine)'?",
]


@pytest.mark.parametrize("result", FAILED, ids=repr)
def test_a_result_that_says_so_has_failed(result: Any) -> None:
    """In each of the usual shapes, with the words that it says it in."""
    found = verdict(result)

    assert found is not None
    assert found.kind == "failed"
    assert found.words
    assert "\x1b" not in found.words


@pytest.mark.parametrize("result", SAYS_NOTHING, ids=repr)
def test_a_result_like_any_other_says_nothing(result: Any) -> None:
    """Though errors are its subject, or a thing in it has a state."""
    assert verdict(result) is None


@pytest.mark.parametrize("result", EMPTY, ids=repr)
def test_a_result_without_anything_in_it_is_empty(result: Any) -> None:
    """No rows, no hits, no text: neither a failure nor a find."""
    found = verdict(result)

    assert found is not None
    assert found.kind == "empty"


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({"success": False, "message": "no such order"}, "no such order"),
        ({"isError": True, "content": [{"type": "text", "text": "no such\n  order"}]}, "no such order"),
        ({"error": {"type": "E", "message": "no such order"}, "id": 3}, "no such order"),
        ({"errors": [{"message": "no such order"}]}, "no such order"),
        ({"exit_code": 3}, "exit code 3"),
        ({"is_error": True}, "failed"),
        ("exitcode: 1\nTraceback (most recent call last):\n  x\nKeyError: 'a'", "KeyError: 'a'"),
        ("<returncode>127</returncode>\n<output>\nsh: curl: not found\n</output>", "sh: curl: not found"),
        ("<returncode>1</returncode>\n<output>\n</output>", "exit code 1"),
        ("Error: " + 500 * "a", "Error: " + 192 * "a" + "…"),
    ],
)  # fmt: skip
def test_a_verdict_has_the_words_of_the_result(result: Any, words: str) -> None:
    """On one line, cut to 200 characters."""
    found = verdict(result)

    assert found is not None
    assert found.words == words


@pytest.mark.parametrize(
    ("marked", "result", "words"),
    [
        (True, {"state": "declined"}, "failed"),
        (True, {"message": "declined"}, "declined"),
        ("no money", {"state": "declined"}, "no money"),
        (False, "Error: is what it is called", ""),
        (None, "Error: no card", "Error: no card"),
    ],
)
def test_the_tool_itself_decides_where_it_says_so(marked: object, result: Any, words: str) -> None:
    """Whatever its result looks like."""
    found = verdict_of(marked, result)

    assert (found.words if found else "") == words


FILLINGS = [
    " ", "\n", "a", "a ", "error ", "Error: ", "error(", "error[", "failed ", "not found ", "no ", "no a ",
    "exit code ", "exit code: 1 ", "File: ", "a:", "a: ", "sh: ", "/bin/sh: ",
    "Traceback (most recent call last):\n", "ValueError ", "ValueError: a\n", "a.", "A_", "-", "\u001b[0",
    "\u001b[0m", "{", "[", '{"a":', "[[", "status code ", "the ", "was ", "invalid ", "your a ", "'",
    "it was not found ", "output: ", "<output>", "return code: 1 ", "return code: 1\n", "the command ", "<returncode>1",
]  # fmt: skip


@pytest.mark.parametrize("filling", FILLINGS, ids=repr)
def test_no_text_takes_long(filling: str) -> None:
    """Only its beginning and its end are looked at; 200,000 characters of anything take no more than those."""
    text = (filling * (200_000 // len(filling) + 1))[:200_000]
    began = time.process_time()
    for whole in (
        text,
        {"result": text},
        [{"type": "text", "text": text}],
        {"error": text},
        "{" + text + "}",
    ):
        verdict(whole)

    assert time.process_time() - began < 2
