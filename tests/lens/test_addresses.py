"""Addresses of traces, as they stand in the address bar of a browser or in a product's documentation."""

from __future__ import annotations

import pytest

from whyops_trace._lens.place import is_address
from whyops_trace._lens.products import PRODUCTS, locate
from whyops_trace.exceptions import ConfigurationError

HEX = "2e76bcc8df51e6eb91be88097bd3b58f"


@pytest.mark.parametrize(
    ("address", "title", "base", "trace_id", "within"),
    [
        (f"http://localhost:16686/trace/{HEX}", "Jaeger", "http://localhost:16686", HEX, ""),
        (
            f"https://ops.example.org/jaeger/trace/{HEX}?uiFind=chat",
            "Jaeger",
            "https://ops.example.org/jaeger",
            HEX,
            "",
        ),
        (f"http://localhost:16686/api/traces/{HEX}", "Jaeger", "http://localhost:16686", HEX, ""),
        (f"http://localhost:16686/api/v3/traces/{HEX}", "Jaeger", "http://localhost:16686", HEX, ""),
        (f"http://localhost:3200/api/v2/traces/{HEX}", "Tempo", "http://localhost:3200", HEX, ""),
        (
            f"https://grafana.example.org/api/datasources/proxy/uid/tempo/api/v2/traces/{HEX}",
            "Tempo",
            "https://grafana.example.org/api/datasources/proxy/uid/tempo",
            HEX,
            "",
        ),
        (
            f"http://localhost:6006/projects/UHJvamVjdDox/traces/{HEX}",
            "Phoenix",
            "http://localhost:6006",
            HEX,
            "UHJvamVjdDox",
        ),
        (
            f"http://localhost:6006/projects/UHJvamVjdDox/spans/{HEX}?selectedSpanNodeId=U3Bhbjo3",
            "Phoenix",
            "http://localhost:6006",
            HEX,
            "UHJvamVjdDox",
        ),
        (
            f"https://app.phoenix.arize.com/s/shop/projects/P/traces/{HEX}",
            "Phoenix",
            "https://app.phoenix.arize.com/s/shop",
            HEX,
            "P",
        ),
        (
            f"http://localhost:6006/v1/projects/my%20shop/spans?trace_id={HEX}&limit=5",
            "Phoenix",
            "http://localhost:6006",
            HEX,
            "my%20shop",
        ),
        (
            f"http://localhost:5000/#/experiments/1/traces?o=1&selectedEvaluationId=tr-{HEX}",
            "MLflow",
            "http://localhost:5000",
            f"tr-{HEX}",
            "",
        ),
        (
            f"http://localhost:5000/#/experiments/1/evaluation-runs?selectedTraceId=tr-{HEX}",
            "MLflow",
            "http://localhost:5000",
            f"tr-{HEX}",
            "",
        ),
        (
            f"https://ml.example.org/mlflow/api/3.0/mlflow/traces/get?trace_id=tr-{HEX}",
            "MLflow",
            "https://ml.example.org/mlflow",
            f"tr-{HEX}",
            "",
        ),
        (
            "https://cloud.langfuse.com/project/cm1/traces/order-7?observation=a",
            "Langfuse",
            "https://cloud.langfuse.com",
            "order-7",
            "cm1",
        ),
        (
            "https://cloud.langfuse.com/project/cm1/traces?peek=order%207",
            "Langfuse",
            "https://cloud.langfuse.com",
            "order%207",
            "cm1",
        ),
        (f"http://localhost:3000/api/public/traces/{HEX}", "Langfuse", "http://localhost:3000", HEX, ""),
        (
            f"http://localhost:8123/telemetry/otel_traces/{HEX}",
            "ClickHouse",
            "http://localhost:8123",
            HEX,
            "telemetry/otel_traces",
        ),
        (
            f"http://localhost:8123/otel_traces_2/{HEX}/",
            "ClickHouse",
            "http://localhost:8123",
            HEX,
            "otel_traces_2",
        ),
        (f"HTTP://[::1]:16686/trace/{HEX}", "Jaeger", "http://[::1]:16686", HEX, ""),
    ],
)
def test_the_form_of_an_address_tells_the_product_and_the_place(
    address: str, title: str, base: str, trace_id: str, within: str
) -> None:
    """The server with the path below which its pages are, the trace, and what the trace is in."""
    product, place = locate(address)

    assert is_address(address)
    assert product.title == title
    assert (place.base, place.trace_id, place.within) == (base, trace_id, within)


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_example_of_a_product_is_an_address_of_it(name: str) -> None:
    """With the id of a trace in place of its word."""
    product, place = locate(PRODUCTS[name].example.replace("TRACE", HEX))

    assert product is PRODUCTS[name]
    assert place.trace_id.removeprefix("tr-") == HEX


def test_a_product_that_is_named_is_the_only_one_that_is_asked() -> None:
    """Two have one path of their APIs."""
    address = f"http://localhost:3200/api/traces/{HEX}"

    assert locate(address)[0].title == "Jaeger"
    assert locate(address, "tempo")[0].title == "Tempo"
    with pytest.raises(ConfigurationError, match=r"no address of a trace that is known.*\n  Phoenix: http"):
        locate(address, "phoenix")


@pytest.mark.parametrize(
    "address",
    [
        f"http://localhost:3000/explore?panes={HEX}",
        "http://localhost:6006/projects/P",
        "http://localhost:5000/#/experiments/1/traces?selectedEvaluationId=tr-7",
        "http://localhost:3000/project/p/traces",
        "http://localhost:8123/traces/..",
    ],
)
def test_an_address_of_no_trace_is_refused_with_those_that_are_known(address: str) -> None:
    """One of each product."""
    with pytest.raises(ConfigurationError) as raised:
        locate(address)

    assert all(product.example in str(raised.value) for product in PRODUCTS.values())


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://ann:hunter2@localhost:16686/trace/1", "in the environment"),
        ("http://:16686/trace/1", "names no host"),
        ("http://localhost:port/trace/1", "is no address"),
        ("http://[::1/trace/1", "is no address"),
    ],
)
def test_what_is_no_address_is_refused_without_a_password_in_the_message(address: str, words: str) -> None:
    """It says what to do."""
    with pytest.raises(ConfigurationError, match=words) as raised:
        locate(address)

    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("name", ["latest", "checkout-8841", "http-trace", "ftp://localhost/trace/1"])
def test_other_names_of_traces_are_no_addresses(name: str) -> None:
    """They are looked up in the store."""
    assert not is_address(name)
