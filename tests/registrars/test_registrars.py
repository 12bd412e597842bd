"""
Traced tools in frameworks that register functions: each is called through the framework, answers, and is recorded.

A framework that is not installed is skipped. ``nox -s registrars`` installs all of them, in environments of their own
where they clash.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import registered
from recorded import Recorded, tool

pytestmark = [
    # They are the frameworks' own.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

#: Registers a tool, has the framework call it with Bern and 2, and returns the answer and the names in its schema.
Use = Callable[[Any], "tuple[Any, list[str]] | Awaitable[tuple[Any, list[str]]]"]
ARGUMENTS: dict[str, Any] = {"city": "Bern", "days": 2}


@dataclass
class Framework:
    """
    A framework that registers tools.

    Args:
        name: The registrar.
        package: The package that has it.
        use: Registers and calls a tool.
        kinds: Kinds of functions that it calls.
        form: The tools that it takes: "" for the usual ones, "_for" for those whose first argument is a request,
            "_of_builtins" where it resolves no names in annotations, be the function traced or not.
    """

    name: str
    package: str
    use: Use
    kinds: tuple[str, ...]
    form: str

    def __str__(self) -> str:
        return self.name

    def tool(self, kind: str) -> Any:
        """Return a traced tool of that kind."""
        return getattr(registered, f"{'a' if kind == 'coroutine' else ''}weather{self.form}")


FRAMEWORKS: list[Framework] = []


def registers(
    name: str, package: str, *, kinds: tuple[str, ...] = ("plain", "coroutine"), form: str = ""
) -> Callable[[Use], Use]:
    """Return a decorator that adds a framework."""

    def decorate(use: Use) -> Use:
        FRAMEWORKS.append(Framework(name, package, use, kinds, form))
        return use

    return decorate


@registers("FastAPI", "fastapi")
def use_fastapi(function: Any) -> Any:
    """As an endpoint."""
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    app = FastAPI()
    app.get("/")(function)
    names = [told["name"] for told in app.openapi()["paths"]["/"]["get"]["parameters"]]
    return TestClient(app).get("/", params=ARGUMENTS).json(), names


@registers("Litestar", "litestar")
def use_litestar(function: Any) -> Any:
    """As a route handler."""
    from litestar import Litestar, get
    from litestar.testing import TestClient

    options = {} if inspect.iscoroutinefunction(function) else {"sync_to_thread": False}
    app = Litestar([get("/", **options)(function)])
    paths = app.openapi_schema.paths or {}
    names = [told.name for told in paths["/"].get.parameters]
    with TestClient(app) as client:
        return client.get("/", params=ARGUMENTS).text, names


@registers("Flask", "flask")
def use_flask(function: Any) -> Any:
    """As a view."""
    from flask import Flask

    app = Flask(__name__)
    app.route("/<city>/<int:days>")(function)
    (rule,) = [rule for rule in app.url_map.iter_rules() if rule.endpoint == function.__name__]
    return app.test_client().get("/Bern/2").text, sorted(rule.arguments)


@registers("Django Ninja", "django-ninja", form="_for")
async def use_ninja(function: Any) -> Any:
    """As an operation."""
    from djangos import set_up

    set_up()
    import ninja
    from ninja.testing import TestAsyncClient, TestClient

    router = ninja.Router()
    router.get("/weather")(function)
    api = ninja.NinjaAPI(urls_namespace=function.__name__)
    api.add_router("", router)
    schema: Any = api.get_openapi_schema(path_prefix="")
    (operation,) = schema["paths"]["/weather"].values()
    names = [told["name"] for told in operation["parameters"]]
    if inspect.iscoroutinefunction(function):
        answer: Any = await TestAsyncClient(router).get("/weather?city=Bern&days=2")
    else:
        answer = await asyncio.to_thread(TestClient(router).get, "/weather?city=Bern&days=2")
    return answer.json(), names


@registers("MCP", "mcp")
async def use_mcp(function: Any) -> Any:
    """As a tool of its server."""
    try:
        from mcp.server.fastmcp import FastMCP as Server
    except ImportError:
        from mcp.server.mcpserver import MCPServer as Server

    server = Server("tools")
    server.tool(name="weather")(function)
    (told,) = await server.list_tools()
    result: Any = await server.call_tool("weather", ARGUMENTS)
    schema = told.model_dump(by_alias=True)["inputSchema"]
    content: Any = result[0] if isinstance(result, tuple) else result
    return getattr(content, "content", content)[0].text, list(schema["properties"])


@registers("FastMCP", "fastmcp")
async def use_fastmcp(function: Any) -> Any:
    """As a tool of a server, called by its client."""
    from fastmcp import Client, FastMCP

    server = FastMCP("tools")
    server.tool(name="weather")(function)
    async with Client(server) as client:
        (told,) = await client.list_tools()
        result = await client.call_tool("weather", ARGUMENTS)
    schema = told.model_dump(by_alias=True)["inputSchema"]
    return result.content[0].text, list(schema["properties"])


@registers("LangChain", "langchain-core")
async def use_langchain(function: Any) -> Any:
    """As a tool."""
    from langchain_core.tools import tool as register

    made = register(function)
    is_later = inspect.iscoroutinefunction(function)
    answer = await made.ainvoke(ARGUMENTS) if is_later else made.invoke(ARGUMENTS)
    return answer, list(made.args)


@registers("LangGraph", "langgraph")
async def use_langgraph(function: Any) -> Any:
    """In a node for tools."""
    from langchain_core.messages import AIMessage
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode

    node = ToolNode([function])
    (made,) = node.tools_by_name.values()
    graph = StateGraph(MessagesState)
    graph.add_node("tools", node)
    graph.add_edge(START, "tools")
    call = {"name": made.name, "args": ARGUMENTS, "id": "1", "type": "tool_call"}
    state: Any = {"messages": [AIMessage("", tool_calls=[call])]}
    app = graph.compile()
    is_later = inspect.iscoroutinefunction(function)
    end = await app.ainvoke(state) if is_later else app.invoke(state)
    return end["messages"][-1].content, list(made.args)


@registers("OpenAI Agents", "openai-agents")
async def use_agents(function: Any) -> Any:
    """As a tool for functions."""
    import json

    from agents import function_tool
    from agents.tool_context import ToolContext

    made = function_tool(function)
    text = json.dumps(ARGUMENTS)
    context: Any = ToolContext(None, tool_name=made.name, tool_call_id="1", tool_arguments=text)
    return await made.on_invoke_tool(context, text), list(made.params_json_schema["properties"])


@registers("Pydantic AI", "pydantic-ai-slim")
async def use_pydantic_ai(function: Any) -> Any:
    """As a tool of an agent, for which a model asks."""
    from pydantic_ai import Agent
    from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
    from pydantic_ai.models.function import FunctionModel

    names: list[str] = []

    def answer(messages: Any, info: Any) -> ModelResponse:
        if len(messages) > 1:
            return ModelResponse(parts=[TextPart(messages[-1].parts[0].content)])
        (told,) = info.function_tools
        names.extend(told.parameters_json_schema["properties"])
        return ModelResponse(parts=[ToolCallPart(told.name, ARGUMENTS)])

    agent = Agent(FunctionModel(answer))
    agent.tool_plain(function)
    return (await agent.run("How is it?")).output, names


@registers("smolagents", "smolagents", kinds=("plain",))
def use_smolagents(function: Any) -> Any:
    """As a tool, which it reads the source of."""
    from smolagents import tool as register

    made = register(function)
    return made(**ARGUMENTS), list(made.inputs)


@registers("LlamaIndex", "llama-index-core", form="_of_builtins")
async def use_llama_index(function: Any) -> Any:
    """As a tool."""
    from llama_index.core.tools import FunctionTool

    if inspect.iscoroutinefunction(function):
        made = FunctionTool.from_defaults(async_fn=function)
        output = await made.acall(**ARGUMENTS)
    else:
        made = FunctionTool.from_defaults(function)
        output = made.call(**ARGUMENTS)
    return output.content, list(made.metadata.get_parameters_dict()["properties"])


@registers("Typer", "typer", kinds=("plain",))
def use_typer(function: Any) -> Any:
    """As a command."""
    import typer

    app = typer.Typer()
    app.command()(function)
    command = typer.main.get_command(app)
    answer = command.main(["Bern", "--days", "2"], standalone_mode=False)
    return answer, [parameter.name for parameter in command.params if parameter.name in ARGUMENTS]


@registers("Click", "click", kinds=("plain",))
def use_click(function: Any) -> Any:
    """As a command."""
    import click

    command = click.command()(click.argument("city")(click.option("--days", type=int)(function)))
    answer = command.main(["Bern", "--days", "2"], standalone_mode=False)
    return answer, [parameter.name for parameter in command.params]


@registers("Celery", "celery", kinds=("plain",))
def use_celery(function: Any) -> Any:
    """As a task, run where it is called."""
    from celery import Celery

    app = Celery("tools", broker="memory://", backend="cache+memory://")
    app.conf.task_always_eager = True
    task = app.task(function)
    return task.delay("Bern", days=2).get(), list(inspect.signature(task.run).parameters)


@registers("RQ", "rq")
def use_rq(function: Any) -> Any:
    """As a job, run where it is queued; it is found by its name."""
    import fakeredis
    from rq import Queue

    queue = Queue(is_async=False, connection=fakeredis.FakeStrictRedis())
    job = queue.enqueue(function, "Bern", days=2)
    return job.return_value(), list(inspect.signature(job.func).parameters)


@registers("Dask", "distributed")
def use_dask(function: Any) -> Any:
    """As a task of a cluster, with its workers in this process."""
    from distributed import Client

    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        future = client.submit(function, "Bern", days=2, pure=False)
        return future.result(timeout=60), list(inspect.signature(function).parameters)


CASES = [
    pytest.param(framework, kind, id=f"{framework}-{kind}")
    for framework in FRAMEWORKS
    for kind in framework.kinds
]


@pytest.mark.parametrize(("framework", "kind"), CASES)
def test_a_registered_tool_answers_and_is_recorded(events: Recorded, framework: Framework, kind: str) -> None:
    """With the parameters that the bare function has."""
    try:
        importlib.metadata.version(framework.package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{framework.package} is not installed; nox -s registrars installs it")

    used = framework.use(framework.tool(kind))
    answer, names = asyncio.run(used) if inspect.iscoroutine(used) else used  # type: ignore[misc]

    assert answer == "Bern 2"
    assert sorted(names) == ["city", "days"]
    assert events.of(events.traces[-1]) == tool("weather", ARGUMENTS, {"result": "Bern 2"})
