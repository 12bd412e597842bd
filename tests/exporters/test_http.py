"""Requests to a server, over real sockets."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from collector import Close, Collector, Drip, Fault, Hang, Reset
from programs import run_code
from wire import Answer as Instead

from whyops_trace.exporters import _http as http_module
from whyops_trace.exporters._http import Http, NoAnswerError

EVENT = b'[{"eventType":"error","traceId":"t","agentName":"shop","content":{"message":"no"}}]'


@pytest.fixture
def http(collector: Collector) -> Iterator[Http]:
    """Requests to it."""
    http = Http(collector.url, "whyops_test")
    yield http
    http.close()


def connections(collector: Collector) -> int:
    """How many connections are open at the server."""
    return len(collector._connections)


def test_json_goes_there_and_comes_back(collector: Collector, http: Http) -> None:
    """With the key, uncompressed, under the package's name, and over one connection."""
    first, second = http.post("/events", EVENT), http.get("/events", {"traceId": "t", "limit": 5})
    sent = collector.requests[0]

    assert (first.status, second.status) == (201, 200)
    assert first.headers["content-type"] == "application/json"
    assert first.body.startswith(b'[{"id":')
    assert sent.body == EVENT
    assert sent.headers["authorization"] == "Bearer whyops_test"
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["accept-encoding"] == "identity"
    assert sent.headers["user-agent"].startswith("whyops-trace/")
    assert "content-encoding" not in sent.headers
    assert collector.requests[1].query == {"traceId": "t", "limit": "5"}
    assert connections(collector) == 1


def test_a_redirect_is_an_answer_and_not_followed(collector: Collector, http: Http) -> None:
    """The key goes nowhere else."""
    collector.fail(Instead(302, headers={"Location": f"{collector.url}/health"}))

    assert http.post("/events", EVENT).status == 302
    assert len(collector.requests) == 1


def test_no_cookie_is_kept(collector: Collector, http: Http) -> None:
    """A load balancer may set one."""
    collector.fail(Instead(503, headers={"Set-Cookie": "a=b"}))
    http.post("/events", EVENT)
    http.post("/events", EVENT)

    assert "cookie" not in collector.requests[1].headers


def test_nothing_is_written_to_the_log_of_the_program(
    collector: Collector, http: Http, caplog: pytest.LogCaptureFixture
) -> None:
    """The HTTP library's client would write a line for each request at the level INFO."""
    with caplog.at_level(logging.INFO):
        http.post("/events", EVENT)

    assert caplog.records == []


@pytest.mark.parametrize(
    "fault",
    [
        Reset("request"),
        Reset("answer"),
        Reset("answer", stored=True),
        Close(),
    ],
)
def test_an_answer_that_does_not_come_is_an_error(collector: Collector, http: Http, fault: Fault) -> None:
    """Whether the server did its work nobody knows; the next request is a new one."""
    collector.script = lambda request: fault if len(collector.requests) == 0 else None
    with pytest.raises(NoAnswerError, match="cannot be reached: ") as caught:
        http.post("/events", EVENT)

    assert collector.url in str(caught.value)
    assert not caught.value.timed_out
    assert http.post("/events", EVENT).status == 201


def test_a_server_that_is_not_there_is_an_error(collector: Collector, http: Http) -> None:
    """Its URL and the reason are in the message."""
    collector.stop()
    with pytest.raises(NoAnswerError, match=rf"^{collector.url} cannot be reached: .*refused") as caught:
        http.post("/events", EVENT)

    assert not caught.value.timed_out


@pytest.mark.parametrize(
    "url", ["http://does-not-exist.invalid", "http://[", "https://127.0.0.1:1", "http://a..b"]
)
def test_a_url_that_leads_nowhere_is_an_error(url: str) -> None:
    """No other exception comes out, however it is misspelled."""
    http = Http(url, "whyops_test")
    with pytest.raises(NoAnswerError):
        http.post("/events", EVENT)
    http.close()


def test_tls_to_a_server_without_it_is_an_error(collector: Collector) -> None:
    """A handshake that fails is no answer."""
    http = Http(collector.url.replace("http:", "https:"), "whyops_test")
    with pytest.raises(NoAnswerError, match="cannot be reached"):
        http.post("/events", EVENT)
    http.close()


def test_a_server_that_takes_too_long_is_told_from_one_that_fails(collector: Collector) -> None:
    """It may have had too much to do."""
    http = Http(collector.url, "whyops_test", read_timeout=0.05)
    collector.fail(Hang())
    with pytest.raises(NoAnswerError, match="does not answer in time") as caught:
        http.post("/events", EVENT)
    http.close()

    assert caught.value.timed_out


def test_an_answer_in_many_small_pieces_is_an_answer(collector: Collector, http: Http) -> None:
    """As long as it ends."""
    collector.fail(Drip())

    assert http.post("/events", EVENT).status == 201


def test_an_answer_that_does_not_end_is_an_error(
    collector: Collector, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each piece comes in time, the whole does not."""
    monkeypatch.setattr(http_module, "ANSWER_TIMEOUT", 0.0)
    collector.fail(Drip())
    with pytest.raises(NoAnswerError, match="too long") as caught:
        http.post("/events", EVENT)

    assert caught.value.timed_out


def test_a_timeout_is_for_the_whole_answer(collector: Collector, http: Http) -> None:
    """Many pieces that come in time do not add up to more."""
    collector.fail(Drip())
    with pytest.raises(NoAnswerError) as caught:
        http.post("/events", EVENT, timeout=0.1)

    assert caught.value.timed_out


def test_an_answer_too_large_to_be_one_is_an_error(
    collector: Collector, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is not filled by whoever answers in the server's place."""
    monkeypatch.setattr(http_module, "MAX_ANSWER", 1000)
    collector.fail(Instead(200, b"x" * 10_000))
    with pytest.raises(NoAnswerError, match="too long for one about events") as caught:
        http.post("/events", EVENT)

    assert not caught.value.timed_out


def test_a_restart_of_the_server_costs_at_most_an_error(collector: Collector, http: Http) -> None:
    """A connection that was kept and is gone does not keep the next request from coming."""
    http.post("/events", EVENT)
    collector.stop()
    collector.start()

    assert http.post("/events", EVENT).status == 201


def test_after_closing_the_next_request_opens_a_connection(collector: Collector, http: Http) -> None:
    """And closing what is closed does nothing."""
    http.post("/events", EVENT)
    http.close()
    http.close()

    assert http.post("/events", EVENT).status == 201


def test_several_threads_may_ask_at_the_same_time(collector: Collector, http: Http) -> None:
    """Each gets its own answer."""
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(http.post("/events", EVENT).status)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses == [201] * 8


def test_a_forked_child_opens_a_connection_of_its_own(collector: Collector, tmp_path: Path) -> None:
    """Parent and child never read each other's answers, and the child leaves no warning about the parent's."""
    code = f"""
    import gc, os, sys
    from whyops_trace.exporters._http import Http
    http = Http({collector.url!r}, "whyops_test")
    def ask(trace):
        body = b'[{{"eventType":"error","traceId":"%b","agentName":"shop"}}]' % trace
        return http.post("/events", body).status
    statuses = [ask(b"first")]
    child = os.fork()
    if not child:
        statuses = [ask(b"child") for _ in range(20)]
        gc.collect()
        http.close()
        sys.exit(statuses != [201] * 20)
    statuses += [ask(b"parent") for _ in range(20)]
    http.close()
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or statuses != [201] * 21)
    """
    ended = run_code(code, tmp_path)

    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_proxy_of_the_environment_is_obeyed(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Except where NO_PROXY says not to."""
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", collector.proxy_url)
    collector.script = lambda request: Instead(200, request.path)
    through = Http("http://server.example/api", "whyops_test")
    answer = through.post("/events", EVENT)
    through.close()
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    past = Http(collector.url, "whyops_test")
    direct = past.post("/events", EVENT)
    past.close()

    assert answer.status == 200
    assert collector.requests[0].headers["host"] == "server.example"
    assert direct.status == 200


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:1", "ftp://127.0.0.1:1", "http://[", "nonsense"])
def test_a_proxy_that_does_not_work_is_an_error(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    """However it is misspelled."""
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", proxy)
    http = Http(collector.url, "whyops_test")
    with pytest.raises(NoAnswerError):
        http.post("/events", EVENT)
    http.close()


def test_certificates_that_cannot_be_read_are_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The reason is in the message."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    http = Http("https://127.0.0.1:1", "whyops_test")
    with pytest.raises(NoAnswerError, match="cannot be reached: "):
        http.post("/events", EVENT)
    http.close()


def test_a_client_with_a_key_has_the_http_library_before_any_worker_does(
    collector: Collector, tmp_path: Path
) -> None:
    """A client of openai takes httpx as it finds it, at each request: it never finds half of it."""
    code = f"""
    import sys, threading
    import openai
    from whyops_trace import WhyOps

    def imported(event, args):
        if event == "import" and threading.current_thread() is not threading.main_thread():
            seen.append(args[0])
    seen = []
    sys.addaudithook(imported)

    client = openai.OpenAI(api_key="sk-test", base_url="http://127.0.0.1:1/v1")
    sdk = WhyOps("whyops_test", agent_name="shop", analyse_base_url={collector.url!r})
    with sdk.trace("t") as trace:
        trace.error_sync("the worker starts")
        client.with_options(base_url="http://127.0.0.1:2/v1", timeout=5)
    assert sdk.close_sync(5)["whyops"].delivered == 1
    print([name for name in seen if name.partition(".")[0] in ("httpx", "httpcore", "email", "urllib", "encodings")])
    """
    ended = run_code(code, tmp_path)

    assert (ended.returncode, ended.stdout) == (0, "[]\n"), ended.stderr
