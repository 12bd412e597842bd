"""The checks of this project, each in an environment of its own: ``nox`` runs them all, ``nox -s lint`` one."""

from __future__ import annotations

from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False

PYTHONS = ["3.11", "3.12", "3.13", "3.14", "3.14t"]

#: Versions of the packages of OpenAI and Anthropic that are tested with each other, and what they stand on.
PROVIDERS = {
    "oldest": ["openai==1.0.0", "anthropic==0.40.0", "httpx==0.27.2"],
    "on-httpx": ["openai==1.109.1", "anthropic==0.75.0"],
    "on-both": ["openai==2.0.0", "anthropic==1.0.0"],
    "newest": ["openai", "anthropic[bedrock]"],
}
#: The tests that use them.
WITH_PROVIDERS = [
    "tests/doubles/test_provider.py",
    "tests/models/test_links.py",
    *(
        f"tests/providers/test_{name}.py"
        for name in ("bedrock", "direct_clients", "streams", "proxied_clients", "hybrid")
    ),
]
#: Packages whose values and exceptions are known by name. Together they are too large for every run of the tests.
FRAMEWORKS = [
    "arq", "asyncpg", "celery", "django", "dramatiq", "huey", "langchain-core", "langgraph", "pandas", "peewee",
    "polars", "psycopg2-binary", "pyarrow", "pydantic-ai-slim", "pymongo", "sqlmodel", "temporalio",
]  # fmt: skip
#: The tests that use them.
WITH_FRAMEWORKS = [
    *(f"tests/values/test_{name}.py" for name in ("outcomes", "rows", "tables")),
    "tests/models/test_langchain.py",
]

#: Frameworks whose runs are traced, with what their tests need beside them.
INTEGRATIONS = {
    "langchain": ["langchain", "langchain-openai", "langgraph", "openinference-instrumentation-langchain"],
    "langchain-1.0": [
        "langchain==1.0.*",
        "langchain-core==1.0.*",
        "langchain-openai==1.0.*",
        "langgraph==1.0.*",
    ],
    "litellm": ["litellm"],
    "mcp": ["mcp"],
    "openai-agents": ["openai-agents", "openinference-instrumentation-openai-agents"],
}

#: Frameworks whose runs are compared with what their own objects tell of them, with those who make their spans.
RUNS = {
    "ag2": ["ag2[openai,tracing]"],
    "claude-agent": ["claude-agent-sdk"],
    "crewai": [
        "crewai",
        "openinference-instrumentation-crewai",
        "openinference-instrumentation-openai",
    ],
    "dspy": [
        "dspy",
        "openinference-instrumentation-dspy",
        "openinference-instrumentation-litellm",
    ],
    "google-adk": ["google-adk>=2.13", "litellm"],
    "haystack": ["haystack-ai", "opentelemetry-haystack"],
    "langgraph": [
        "langchain",
        "langchain-openai",
        "langgraph",
        "openinference-instrumentation-langchain",
    ],
    "llama-index": [
        "llama-index-core",
        "llama-index-llms-openai",
        "openinference-instrumentation-llama-index",
    ],
    "mcp": ["mcp>=2.3", "openai", "openinference-instrumentation-openai"],
    "openai-agents": ["openai-agents", "openinference-instrumentation-openai-agents"],
    "pydantic-ai": ["pydantic-ai-slim[openai]"],
    "smolagents": ["openinference-instrumentation-smolagents", "smolagents[openai]"],
    "strands": ["strands-agents[openai]>=1.62"],
}

#: Other tools that replay agents, and what the agents stand on.
REPLAYED = [
    "agent-timetravel", "agentfork-cli", "anthropic", "langchain", "langchain-openai", "openai", "openai-agents",
    "pydantic-ai-slim[openai]", "vcrpy",
]  # fmt: skip

#: Products that store traces, of ClickHouse the engine.
LENS = {
    "clickhouse": ["chdb>=4"],
    "mlflow": ["mlflow>=3.6"],
    "phoenix": ["arize-phoenix>=20"],
}

#: Frameworks that register tools: the newest of all, older ones that read functions otherwise, and a few small ones.
REGISTRARS = {
    "newest": [
        "celery",
        "click",
        "distributed",
        "django-ninja",
        "fakeredis",
        "fastapi",
        "fastmcp",
        "flask[async]",
        "langchain",
        "langgraph",
        "litestar",
        "llama-index-core",
        "mcp",
        "openai-agents",
        "pydantic-ai-slim",
        "rq",
        "smolagents",
        "typer",
    ],
    "older": ["fastapi==0.115.*", "mcp==1.14.*", "pydantic<2.12"],
    "light": ["click", "fastapi", "flask[async]", "litestar", "typer"],
}


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests as a user of the repository would."""
    session.install(".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=PYTHONS[0])
def minimums(session: nox.Session) -> None:
    """Run the tests with the oldest dependencies that pyproject.toml allows."""
    oldest = [
        "anyio==4.4",
        "httpx==0.27",
        "msgspec==0.19",
        "typing-extensions==4.12.2",
        "wrapt==1.16.0",
        "click==8.2.1",
        "genai-prices==0.2",
        "jinja2==3.1.2",
        "rich==13.7",
        "starlette==0.46",
        "uvicorn==0.30",
    ]
    session.install(".[test]", *oldest)
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=PYTHONS[0])
@nox.parametrize("packages", list(PROVIDERS.values()), ids=list(PROVIDERS))
def providers(session: nox.Session, packages: list[str]) -> None:
    """Run the tests of clients with the oldest, the newest and some other packages of the providers."""
    session.install(".[test]")
    session.install("--upgrade", *packages)
    session.install("anyio>=4.4")  # openai before 1.3.9 asks for an older one, but works with this as well
    session.run("python", "-m", "pytest", *WITH_PROVIDERS, *session.posargs)


@nox.session(python=PYTHONS[0])
def frameworks(session: nox.Session) -> None:
    """Run the tests of values and exceptions with the packages that they come from."""
    session.install(".[test]", *FRAMEWORKS)
    session.run("python", "-m", "pytest", *WITH_FRAMEWORKS, *session.posargs)


@nox.session(python=PYTHONS[0])
@nox.parametrize("packages", list(INTEGRATIONS.values()), ids=list(INTEGRATIONS))
def integrations(session: nox.Session, packages: list[str]) -> None:
    """Run agents of a framework, and look at their traces."""
    session.install(".[test]", *packages)
    session.run(
        "python", "-m", "pytest", "tests/integrations", "tests/project/test_docs.py", *session.posargs
    )


@nox.session(python=PYTHONS[0], default=False)
@nox.parametrize("packages", list(RUNS.values()), ids=list(RUNS))
def framework_runs(session: nox.Session, packages: list[str]) -> None:
    """Run agents of a framework, and compare their traces with what its own objects tell of them."""
    session.install(".[test]", "opentelemetry-exporter-otlp-proto-http", *packages)
    session.run("python", "-m", "pytest", "tests/runs", "tests/project/test_docs.py", *session.posargs)


@nox.session(python=PYTHONS[0], default=False)
@nox.parametrize("packages", list(LENS.values()), ids=list(LENS))
def lens(session: nox.Session, packages: list[str]) -> None:
    """Send captured runs to a product that stores traces, and read them back by the lens; takes some minutes."""
    session.install(".[test]", *packages)
    # A plugin that Phoenix brings for pytest cannot be loaded where warnings are errors.
    session.run("python", "-m", "pytest", "-p", "no:phoenix", "tests/lens", *session.posargs)


@nox.session(python=PYTHONS[0], default=False)
@nox.parametrize("packages", list(REGISTRARS.values()), ids=list(REGISTRARS))
def registrars(session: nox.Session, packages: list[str]) -> None:
    """Register traced tools with frameworks, call them there, and show which took what."""
    session.install(
        ".[ui]", "attrs", "hypothesis", "pytest", "pytest-randomly", "pytest-timeout", "trio", *packages
    )
    session.run("python", "-m", "pytest", "tests/registrars", *session.posargs)


@nox.session(python=PYTHONS[0], default=False)
@nox.parametrize("receiver", ["oteltap", "mlflow", "arize-phoenix"])
def otlp_receivers(session: nox.Session, receiver: str) -> None:
    """Export spans to a real receiver, and print what it shows of them."""
    session.install(".[otel,prices]", receiver)
    session.run("python", "tests/receivers/readback.py", receiver.removeprefix("arize-"), *session.posargs)


@nox.session(python=PYTHONS[0], default=False)
def otlp_cost(session: nox.Session) -> None:
    """Measure the CPU of an exported span, beside that of the SDK of OpenTelemetry; takes a minute."""
    session.install(".", "opentelemetry-exporter-otlp-proto-http")
    session.run("python", "tests/bench/otlp.py")


@nox.session(python=PYTHONS[0], default=False)
def forward_cost(session: nox.Session) -> None:
    """What a server that forwards takes and sends on in a second, and the CPU of each span and event."""
    session.install(".[ui]")
    session.run("python", "tests/bench/forwarding.py")


@nox.session(python=PYTHONS[0], default=False)
def sampling(session: nox.Session) -> None:
    """Measure what sampling by outcome saves and costs; takes a minute."""
    session.install(".[otel]")
    session.run("python", "tests/bench/tail_sampling.py")


@nox.session(python=PYTHONS[0], default=False)
def workers(session: nox.Session) -> None:
    """Run the tests of processes and greenlets with the packages that make them."""
    session.install(".[test]")
    session.install(
        "celery", "dask[distributed]", "eventlet", "gevent", "httpx2", "joblib", "ray", "requests", "rq"
    )
    files = (
        "tests/integrations/test_http.py",
        "tests/integrations/test_queues.py",
        "tests/integrations/test_services.py",
        "tests/tracing/test_lost_scope.py",
        "tests/tracing/test_workers.py",
    )
    session.run("python", "-m", "pytest", *files, *session.posargs)


@nox.session(python=PYTHONS[0], default=False)
def detectors(session: nox.Session) -> None:
    """Have a package that finds personal data look through records, as the docs show it."""
    session.install(".[test]", "presidio-analyzer")
    session.run("python", "-m", "pytest", "tests/values/test_before_record.py", *session.posargs)


@nox.session(python=PYTHONS[0], default=False)
def coverage(session: nox.Session) -> None:
    """Show the lines and branches that no test runs, child processes included; takes twice as long as the tests."""
    session.install("-e", ".[test]", "coverage>=7.10")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session(python=PYTHONS[0], default=False)
def soak(session: nox.Session) -> None:
    """Record a million events, and 20,000 conversations, in one process whose memory stays as it is; takes an hour."""
    session.install(".[test]")
    session.run("python", "-m", "pytest", "-s", "tests/faults/test_stress.py", env={"WHYOPS_SOAK": "1"})


@nox.session(python=PYTHONS[0], default=False)
def faults(session: nox.Session) -> None:
    """Measure what becomes of events while a server misbehaves and processes are killed; takes some minutes."""
    session.install(".[test]")
    session.run("python", "-m", "faults.measure", *session.posargs, env={"PYTHONPATH": "tests:tests/doubles"})


@nox.session(python=PYTHONS[0], default=False)
def recordings(session: nox.Session) -> None:
    """Replay a folder of recorded model calls through traced clients: ``nox -s recordings -- FOLDER``."""
    session.install(".[test]", "PyYAML")
    session.run("python", "-m", "providers.recordings", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session(python=PYTHONS[0], default=False)
def bench(session: nox.Session) -> None:
    """Time what every traced call pays for, beside the runs before it: ``nox -s bench -- --benchmark-compare``."""
    session.install(".[test]", "pytest-benchmark==5.3.1")
    shown = "--benchmark-group-by=group", "--benchmark-columns=min,median,iqr,rounds,iterations"
    kept = (
        f"--benchmark-storage=file://{Path(session.cache_dir).resolve()}/benchmarks",
        "--benchmark-autosave",
    )
    options = ["-p", "no:randomly", "--timeout=0", *shown, *kept, *session.posargs]
    session.run("python", "-m", "pytest", "tests/bench", *options)


@nox.session(python=PYTHONS[0], default=False)
def compare(session: nox.Session) -> None:
    """Measure this package beside others that trace, each in an environment of its own; takes an hour or so."""
    cache = Path(session.cache_dir).resolve() / "compare"
    session.run(
        "python", "-m", "compare", "--cache", str(cache), *session.posargs, env={"PYTHONPATH": "tests/bench"}
    )


@nox.session(python=PYTHONS[0], default=False)
def replay_table(session: nox.Session) -> None:
    """Replay forty agents, and a mutation of each, beside other tools for replays; takes ten minutes."""
    session.install(".", *REPLAYED)
    session.run("python", "-m", "replays", *session.posargs, env={"PYTHONPATH": "tests/bench:tests/doubles"})


@nox.session(python=PYTHONS[0], default=False)
def proxy_wait(session: nox.Session) -> None:
    """Measure the wait of requests through the WhyOps proxy for what was recorded before; takes a minute or two."""
    session.install(".[test]")
    session.run(
        "python", "-m", "proxy_wait", *session.posargs, env={"PYTHONPATH": "tests/bench:tests/doubles"}
    )


@nox.session(python=PYTHONS[0], default=False)
def ingest(session: nox.Session) -> None:
    """Measure how many events the local collector stores while its pages are read; takes half a minute."""
    session.install(".[ui]")
    session.run("python", "-m", "ingest", *session.posargs, env={"PYTHONPATH": "tests/bench"})


@nox.session(python=PYTHONS[0], default=False)
def scale(session: nox.Session) -> None:
    """Measure commands and pages in homes of up to a million events, and a large backlog; takes ten minutes."""
    session.install(".[ui]")
    session.run("python", "-m", "scale", *session.posargs, env={"PYTHONPATH": "tests/bench"})


@nox.session(python=PYTHONS[0], default=False)
def viewer(session: nox.Session) -> None:
    """Measure the viewer with a real server and browser, beside its goals; needs /usr/bin/chromium."""
    session.install(".[test]")
    session.run("python", "tests/bench/viewer.py")


@nox.session(python=PYTHONS[0], default=False)
def pictures(session: nox.Session) -> None:
    """Take the pictures of the pages about frameworks anew; needs /usr/bin/chromium."""
    session.install(".[test,mcp]", "pillow")
    session.run("python", "tests/runs/pictures.py", *session.posargs)


@nox.session(python=PYTHONS[0])
def core_only(session: nox.Session) -> None:
    """Record, and replay, with nothing but the core dependencies."""
    session.install(".")
    for example in ("01_quickstart", "16_replay_a_run"):
        session.run("python", f"examples/{example}.py", env={"WHYOPS_HOME": session.create_tmp()})


@nox.session(python=PYTHONS[0])
def lint(session: nox.Session) -> None:
    """Check style, docstrings and the direction of imports."""
    session.install("-e", ".[all]", "ruff", "import-linter")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports")


@nox.session(python=PYTHONS[0])
def types(session: nox.Session) -> None:
    """Check types: of all code with mypy, of the package and its public API with pyright."""
    session.install(".[test,langchain]", "mypy", "pyright[nodejs]")
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "whyops_trace", "--ignoreexternal", silent=True)


@nox.session(python=PYTHONS[0])
def docs(session: nox.Session) -> None:
    """Build the documentation as a site, of which every name and link leads somewhere."""
    site = Path("docs/_build/html").resolve()
    session.install(".[docs]")
    session.run("python", "-m", "sphinx", "-n", "-W", "--keep-going", "-q", "docs", str(site))
    session.log(f"The site begins at {site.as_uri()}/index.html")


@nox.session(python=PYTHONS[0])
def package(session: nox.Session) -> None:
    """Build the wheel and run the demo from it, in an environment with nothing else."""
    dist = Path(session.create_tmp()).resolve()
    session.install("build")
    session.run("python", "-m", "build", "--outdir", str(dist), ".", silent=True)
    (wheel,) = dist.glob("*.whl")
    session.install(f"whyops-trace[ui] @ {wheel.as_uri()}")
    session.cd(dist)  # away from the sources
    session.run("whyops-trace", "--version")
    session.run("whyops-trace", "demo", "--home", str(dist / "home"), silent=True)
    # A page needs the templates, styles and scripts, which are no Python.
    session.run(
        "whyops-trace",
        "export",
        "latest",
        "--home",
        str(dist / "home"),
        "--output",
        "trace.html",
        silent=True,
    )
