"""The settings of OTLP, by the variables of OpenTelemetry and by arguments."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest
from receiver import Receiver

from whyops_trace import ConfigurationError, WhyOps, traced_tool
from whyops_trace.exporters._http import NoAnswerError
from whyops_trace.exporters.otlp import OtlpExporter
from whyops_trace.settings import otlp_endpoint


@traced_tool
def work() -> None: ...


@pytest.mark.parametrize(
    ("variables", "url", "expected"),
    [
        ({}, True, "http://localhost:4318/v1/traces"),
        ({"ENDPOINT": "http://col:4318"}, True, "http://col:4318/v1/traces"),
        ({"ENDPOINT": "http://col:4318/otlp/"}, True, "http://col:4318/otlp/v1/traces"),
        ({"ENDPOINT": "http://col:4318", "TRACES_ENDPOINT": "http://t/x"}, True, "http://t/x"),
        ({"TRACES_ENDPOINT": "http://t/"}, True, "http://t/"),
        ({"ENDPOINT": "http://col:4318"}, "http://mine", "http://mine/v1/traces"),
        ({}, "http://mine/v1/traces", "http://mine/v1/traces"),
        ({}, "http://mine/otlp/?key=k", "http://mine/otlp/v1/traces?key=k"),
        ({}, "http://mine/v1/traces?key=k", "http://mine/v1/traces?key=k"),
        ({"ENDPOINT": "http://col:4318?key=k"}, True, "http://col:4318/v1/traces?key=k"),
        ({}, "https://mine/api/public/otel/", "https://mine/api/public/otel/v1/traces"),
    ],
)
def test_the_endpoint_is_found_by_the_rules_of_opentelemetry(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str | bool, expected: str
) -> None:
    """The one for traces is taken as it is, the other gets the path; an argument comes first."""
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)

    assert otlp_endpoint(url) == expected  # type: ignore[arg-type]


def test_one_variable_makes_a_client_export(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The local store keeps everything too."""
    monkeypatch.setenv("WHYOPS_OTLP", receiver.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "tea-shop")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=prod,team=a%2Cb")
    work()
    ledger = WhyOps().flush_sync()  # the same journal is not needed: the default client exports as well

    assert "otlp" in ledger and "local" in ledger
    (span,) = receiver.wait(1)
    assert span.resource["service.name"] == "tea-shop"
    assert (span.resource["deployment.environment"], span.resource["team"]) == ("prod", "a,b")


@pytest.mark.parametrize(
    ("variable", "value", "tracing"),
    [("OTEL_SDK_DISABLED", "true", "on"), ("WHYOPS_OTLP", "off", "on"), ("WHYOPS_TRACING", "local", None)],
)
def test_exporting_can_be_switched_off(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, tracing: str | None
) -> None:
    """By what switches OpenTelemetry off, and where nothing may leave the machine."""
    monkeypatch.setenv("WHYOPS_OTLP", receiver.url)
    monkeypatch.setenv(variable, value)

    assert WhyOps().settings.otlp == ""


def test_the_variables_of_opentelemetry_alone_export_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs have them for other libraries."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")

    assert WhyOps().settings.otlp == ""


def test_headers_are_percent_decoded(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those for traces come instead of those for all signals; a timeout of the SDK of Python is one in seconds."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-other=1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "Authorization=Basic%20cGs6c2s=, x-team = a%2Cb")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "15")
    sdk = WhyOps(otlp=receiver.url, store=False)
    sdk.trace("t").error_sync("no")
    sdk.close_sync()
    exporter = OtlpExporter()

    assert exporter.settings.timeout == 15.0
    assert exporter.settings.headers == {"Authorization": "Basic cGs6c2s=", "x-team": "a,b"}


@pytest.mark.parametrize(
    "text", ["authorization:Bearer%20sk-1", "a=b,sk-1", "x=sk-1%0a%0dy", "a%20b=sk-1", "x=sk-1é"]
)
def test_a_header_that_cannot_be_sent_is_refused_without_its_value(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a key, and the HTTP library would tell it."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", text)
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_HEADERS") as error:
        OtlpExporter("http://localhost:1")

    assert "sk-1" not in str(error.value)


def test_a_login_in_the_url_is_sent_as_a_header(receiver: Receiver) -> None:
    """The URL stands in logs, and so is without it; a header that is given comes first."""
    url = receiver.url.replace("://", "://ada:sk%2D1@")
    sdk = WhyOps(store=False, exporters=[OtlpExporter(url)])
    with sdk.trace("t"):
        work()
    sdk.flush_sync()

    assert OtlpExporter(url).settings.endpoint == OtlpExporter(receiver.url).settings.endpoint
    assert receiver.requests[0].headers["authorization"] == "Basic YWRhOnNrLTE="
    assert OtlpExporter(url, headers={"authorization": "x"}).settings.headers == {"authorization": "x"}


def test_keys_in_a_url_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of a receiver that is away, and not of one whose URL is none; the requests have them."""
    exporter = OtlpExporter("http://127.0.0.1:1/otlp?key=sk-1")
    with contextlib.closing(exporter.http()) as http, pytest.raises(NoAnswerError) as away:
        http.post("", exporter.empty_request(), timeout=5)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "ada:sk-1@collector/v1?key=sk-1")
    with pytest.raises(ConfigurationError) as no_url:
        WhyOps(otlp=True)

    assert str(away.value).startswith("http://127.0.0.1:1/otlp/v1/traces cannot be reached")
    assert "'collector/v1'" in str(no_url.value)
    assert "sk-1" not in f"{away.value}{no_url.value}"


def test_the_end_of_a_line_is_no_part_of_a_header() -> None:
    """Keys are often read from files, which end with one."""
    exporter = OtlpExporter("http://localhost:1", headers={"x-key": "k\n"})

    assert exporter.settings.headers == {"x-key": "k"}


def test_headers_arrive(receiver: Receiver) -> None:
    """With the type of the body, and without a key of WhyOps."""
    sdk = WhyOps(store=False, exporters=[OtlpExporter(receiver.url, headers={"x-key": "k"})])
    sdk.trace("t")
    with sdk.trace("t"):
        work()
    sdk.flush_sync()
    (request,) = receiver.requests

    assert (request.path, request.headers["x-key"]) == ("/v1/traces", "k")
    assert request.headers["content-type"] == "application/x-protobuf"
    assert "authorization" not in request.headers


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "gzip or none"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "milliseconds"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "novalue", "name=value"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "http://"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere.pem", "certificate"),
        ("WHYOPS_OTLP_CONTENT", "yes", "on or off"),
    ],
)
def test_a_setting_that_cannot_be_obeyed_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    """The error says what to do."""
    monkeypatch.setenv(variable, value)

    with pytest.raises(ConfigurationError, match=words):
        WhyOps(otlp=True)


def test_grpc_for_others_is_no_matter_of_an_endpoint_by_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is for what the program's other libraries export."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")

    assert OtlpExporter("http://mine").settings.protocol == "http/protobuf"


def test_own_certificates_are_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver's, and one that this client shows."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    request = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    command = [*request, "-subj", "/CN=localhost", "-days", "2", "-nodes"]
    subprocess.run(command, check=True, capture_output=True)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(certificate))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", str(certificate))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", str(key))
    trust = OtlpExporter("https://localhost").settings.trust()

    assert trust is not None and len(trust.get_ca_certs()) == 1
