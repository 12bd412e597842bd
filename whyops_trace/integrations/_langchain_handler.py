"""The callback handler of LangChain and LangGraph: each run that it is told of begins and ends a call."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import FrameType
from typing import Any, Final
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.tracers.context import register_configure_hook

from whyops_trace._guard import guarded
from whyops_trace.client import WhyOps
from whyops_trace.integrations._attachment import Attachment
from whyops_trace.integrations._runs import Run, Runs, call_id_of, metadata_of, model_of, name_of
from whyops_trace.open_calls import STEP_MEMBERS, OpenCall
from whyops_trace.tracing import Trace

#: Beginnings of the names of the framework's own runnables, which say nothing of an agent.
_INTERNAL: Final = ("Runnable", "ChannelRead", "ChannelWrite", "Branch<", "__start__", "_write")
#: Kinds of chains that only shape what goes into a model or comes out of it.
_SHAPES: Final = ("parser", "prompt")
#: The tag of what LangGraph hides from traces, and the beginning of the one that only its nodes have.
_HIDDEN: Final = "langsmith:hidden"
_NODE: Final = "graph:step:"
#: Beginnings of the names of metadata that the framework makes itself.
_MADE: Final = ("ls_", "lc_", "langgraph_", "checkpoint_ns", "__")
#: Functions of the framework that tell of a chain and run it there and then. Others hand out items of it, or tell of
#: several before they run one, and the code around must not get into any.
_RUNNERS: Final = frozenset({"invoke", "ainvoke", "_call_with_config", "_acall_with_config"})
#: Beginnings of the modules between such a function and the handler.
_TELLERS: Final = ("langchain_core.callbacks", "whyops_trace")
#: The node that ends a graph.
_END: Final = "__end__"
_ROLES: Final = {"human": "user", "ai": "assistant"}
#: Parameters of a call of a model that are told elsewhere.
_TOLD: Final = frozenset({"model", "model_name", "_type", "stop"})


class Handler(BaseCallbackHandler):
    """
    Records the runs that it is told of.

    Its methods run where the framework runs what they tell of, also in asynchronous code: that is how code in a tool
    or node gets into the call.

    Args:
        current: Function that returns whether runs are traced, and the client of those outside any trace.
    """

    run_inline = True

    def __init__(self, current: Callable[[], tuple[bool, WhyOps | None]]) -> None:
        self._current = current
        self._runs = Runs()

    def __deepcopy__(self, memo: object) -> Handler:
        return self  # as it is told of the end of what it was told of the begin

    def __copy__(self) -> Handler:
        return self

    @guarded("recording a run of a chain")
    def on_chain_start(
        self,
        serialized: Mapping[str, Any] | None,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        **about: Any,
    ) -> None:
        """Begin a graph, a node of one or another runnable."""
        tags, told = tags or (), metadata or {}
        name = name_of(about.get("name"), _class_of(serialized), otherwise="chain")
        is_node = any(tag.startswith(_NODE) for tag in tags)
        is_agent = not is_node and _is_agent(name, told)
        shown = (
            not name.startswith(_INTERNAL) and about.get("run_type") not in _SHAPES and _HIDDEN not in tags
        )
        details = metadata_of(told if parent_run_id is None else {}, STEP_MEMBERS)
        details = {key: value for key, value in details.items() if not key.startswith(_MADE)}
        if is_node:
            details = {key: told[key] for key in ("langgraph_node", "langgraph_step") if key in told}

        def start(trace: Trace, parent: OpenCall | None) -> OpenCall:
            return trace.start_step(
                name,
                kind="agent" if is_agent else "step",
                parent=parent,
                input=_newest_of(_told(inputs)),
                metadata=details,
            )

        run = self._begin(run_id, parent_run_id, start, told, shown=shown)
        if run is not None:
            run.notes["is_node"] = is_node
            if is_node or _runs_at_once():
                _enter(run)

    @guarded("recording the end of a chain")
    def on_chain_end(self, outputs: Any, *, run_id: UUID, **_: Any) -> None:
        """End it, after the hand-overs that it asks for."""
        run = self._runs.pop(run_id)
        if run is not None and run.own_call is not None:
            self._hand_over(run, outputs)
            told = _told(outputs)
            run.own_call.end(told if run.notes.get("is_node") else _newest_of(told))

    @guarded("recording the failure of a chain")
    def on_chain_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """End it with its failure, or what is none: an interrupt is the control flow of LangGraph."""
        self._fail(run_id, error)

    @guarded("recording a call of a tool")
    def on_tool_start(
        self,
        serialized: Mapping[str, Any] | None,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, Any] | None = None,
        inputs: Mapping[str, Any] | None = None,
        **about: Any,
    ) -> None:
        """Begin a call of a tool, with its arguments by name."""
        name = name_of(about.get("name"), (serialized or {}).get("name"), otherwise="tool")
        arguments = {"input": input_str} if inputs is None else inputs
        call_id = call_id_of(about.get("tool_call_id"))

        def start(trace: Trace, parent: OpenCall | None) -> OpenCall:
            return trace.start_tool_call(name, arguments, call_id=call_id, parent=parent)

        run = self._begin(run_id, parent_run_id, start, metadata or {})
        if run is not None:
            run.notes["call_id"] = call_id
            _enter(run)

    @guarded("recording the result of a tool")
    def on_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> None:
        """End it with its result. A message that says that the tool failed is its failure."""
        run = self._runs.pop(run_id)
        if run is None or run.own_call is None:
            return
        self._hand_over(run, output)
        message = _answer_in(output, run.notes["call_id"])
        result = getattr(message, "content", message)
        if getattr(message, "status", "") == "error":
            run.own_call.end(error=str(result))
        elif getattr(message, "artifact", None) is not None:
            run.own_call.end({"content": result, "artifact": message.artifact})
        else:
            run.own_call.end(result)

    @guarded("recording the failure of a tool")
    def on_tool_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """End it with its failure."""
        self._fail(run_id, error)

    @guarded("recording a call of a chat model")
    def on_chat_model_start(
        self,
        serialized: Mapping[str, Any] | None,
        messages: Sequence[Any],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, Any] | None = None,
        **about: Any,
    ) -> None:
        """Begin a turn of a chat model."""
        self._ask(serialized, next(iter(messages), []), run_id, parent_run_id, metadata or {}, about)

    @guarded("recording a call of a model")
    def on_llm_start(
        self,
        serialized: Mapping[str, Any] | None,
        prompts: Sequence[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, Any] | None = None,
        **about: Any,
    ) -> None:
        """Begin a turn of a model that completes a text."""
        self._ask(serialized, next(iter(prompts), ""), run_id, parent_run_id, metadata or {}, about)

    def _ask(
        self,
        serialized: Mapping[str, Any] | None,
        asked: Any,
        run_id: UUID,
        parent_run_id: UUID | None,
        metadata: Mapping[str, Any],
        about: Mapping[str, Any],
    ) -> None:
        parameters = about.get("invocation_params") or {}
        model = model_of(
            parameters.get("model"),
            parameters.get("model_name"),
            metadata.get("ls_model_name"),
            _class_of(serialized),
        )
        provider = name_of(metadata.get("ls_provider"), otherwise="unknown")
        request = {key: value for key, value in parameters.items() if key not in _TOLD and value is not None}
        if parameters.get("stop"):
            request["stop"] = parameters["stop"]
        name = name_of(about.get("name"), _class_of(serialized), otherwise=model)

        def start(trace: Trace, parent: OpenCall | None) -> OpenCall:
            return trace.start_llm_call(model, provider, asked, name=name, request=request, parent=parent)

        run = self._begin(run_id, parent_run_id, start, metadata)
        if run is not None and about.get("batch_size", 1) == 1:
            _enter(run)

    @guarded("recording the first output of a model")
    def on_llm_new_token(self, token: Any, *, chunk: Any = None, run_id: UUID, **_: Any) -> None:
        """Note that an answer comes; from now on the code around may run between two pieces."""
        run = self._runs.get(run_id)
        if run is not None and run.own_call is not None:
            run.own_call.leave()
            if token or getattr(getattr(chunk, "message", None), "tool_call_chunks", None):
                run.own_call.note_output()

    @guarded("recording the answer of a model")
    def on_llm_end(self, response: Any, *, run_id: UUID, **_: Any) -> None:
        """End the turn."""
        run = self._runs.pop(run_id)
        if run is not None and run.own_call is not None:
            run.own_call.end(response)

    @guarded("recording the failure of a model")
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """End the turn with its failure."""
        self._fail(run_id, error)

    @guarded("recording a call of a retriever")
    def on_retriever_start(
        self,
        serialized: Mapping[str, Any] | None,
        query: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, Any] | None = None,
        **about: Any,
    ) -> None:
        """Begin a search for documents."""
        name = name_of(about.get("name"), _class_of(serialized), otherwise="retriever")

        def start(trace: Trace, parent: OpenCall | None) -> OpenCall:
            return trace.start_step(name, parent=parent, input=query)

        run = self._begin(run_id, parent_run_id, start, metadata or {})
        if run is not None:
            _enter(run)

    @guarded("recording what a retriever found")
    def on_retriever_end(self, documents: Any, *, run_id: UUID, **_: Any) -> None:
        """End it with the documents."""
        run = self._runs.pop(run_id)
        if run is not None and run.own_call is not None:
            run.own_call.end(documents)

    @guarded("recording the failure of a retriever")
    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """End it with its failure."""
        self._fail(run_id, error)

    def _begin(
        self,
        run_id: UUID,
        parent_run_id: UUID | None,
        start: Callable[[Trace, OpenCall | None], OpenCall],
        metadata: Mapping[str, Any],
        *,
        shown: bool = True,
    ) -> Run | None:
        traces, sdk = self._current()
        around = self._runs.get(parent_run_id)
        if not traces and around is None:
            return None
        about = metadata if around is None else {}
        about = {key: value for key, value in metadata_of(about).items() if not key.startswith(_MADE)}
        run = self._runs.begin(run_id, parent_run_id, start, sdk=sdk, shown=shown, about=about)
        if run is not None:
            run.notes["commands"] = [] if around is None else around.notes["commands"]
        return run

    def _fail(self, run_id: UUID, error: BaseException) -> None:
        run = self._runs.pop(run_id)
        if run is not None and run.own_call is not None:
            run.own_call.end(error=error)

    @staticmethod
    def _hand_over(run: Run, outputs: Any) -> None:
        """Record the hand-overs that a node or a tool asks for. A node passes those of its tools on."""
        seen: list[Any] = run.notes["commands"]
        for command in outputs if isinstance(outputs, list) else [outputs]:
            if _is_command(command) and not any(command is each for each in seen):
                seen.append(command)
                for target in _targets(command.goto):
                    run.trace.start_step(target, kind="handoff", parent=run.call).end()


def _enter(run: Run) -> None:
    if run.own_call is not None:
        run.own_call.enter()


def _class_of(serialized: Mapping[str, Any] | None) -> str:
    """Return the name of what is serialized, "" if it is not told."""
    path = (serialized or {}).get("id")
    return str((serialized or {}).get("name") or (path[-1] if isinstance(path, list) and path else ""))


def _is_agent(name: str, metadata: Mapping[str, Any]) -> bool:
    """Tell whether a graph is one that ``create_agent`` made. What runs in it has its metadata as well."""
    own = metadata.get("lc_agent_name") or "LangGraph"
    return metadata.get("ls_integration") == "langchain_create_agent" and name == own


def _runs_at_once() -> bool:
    """Tell whether the function that tells of a chain goes on to run it."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and str(frame.f_globals.get("__name__")).startswith(_TELLERS):
        frame = frame.f_back
    return frame is not None and frame.f_code.co_name in _RUNNERS


def _told(value: Any) -> Any:
    """Return what a node takes or gives with messages and commands by what they say, at any depth."""
    if isinstance(value, dict):
        return {key: _told(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_told(item) for item in value]
    if isinstance(value, BaseMessage):
        calls = getattr(value, "tool_calls", None)
        told = {"role": _ROLES.get(value.type, value.type), "content": value.content}
        return {**told, "tool_calls": calls} if calls else told
    if _is_command(value):
        members = {name: getattr(value, name, None) for name in ("goto", "update", "resume")}
        return {name: _told(member) for name, member in members.items() if member not in (None, ())}
    return value


def _newest_of(told: Any) -> Any:
    """Return the state of a graph with the newest of its messages alone: the turns in it have them all."""
    if not isinstance(told, dict):
        return told
    brief = {key: _newest_of(value) for key, value in told.items()}
    messages = brief.get("messages")
    return {**brief, "messages": messages[-1:]} if isinstance(messages, list) else brief


def _answer_in(output: Any, call_id: str | None) -> Any:
    """Return the message that answers a call, if a command has it, else the output itself."""
    update = output.update if _is_command(output) else None
    messages = update.get("messages") if isinstance(update, dict) else None
    answers = (each for each in messages or () if call_id and getattr(each, "tool_call_id", None) == call_id)
    return next(answers, output)


def _is_command(value: Any) -> bool:
    return type(value).__name__ == "Command" and hasattr(value, "goto")


def _targets(goto: Any) -> Iterator[str]:
    """Yield the names of the nodes that a command goes to."""
    for target in goto if isinstance(goto, (list, tuple)) else [goto]:
        name = getattr(target, "node", target)
        if isinstance(name, str) and name and name != _END:
            yield name_of(name, otherwise="")


_attachments: list[Attachment] = []
#: The instrumentations that make spans of the same runs.
_SPANS: Final = ("openinference.instrumentation.langchain", "opentelemetry.instrumentation.langchain")


def _newest() -> tuple[bool, WhyOps | None]:
    return (True, _attachments[-1].sdk) if _attachments else (False, None)


_HANDLER: Final = Handler(_newest)
#: The handler of every run in the process: the default of a context variable is its value in all threads and tasks.
_ATTACHED: Final[ContextVar[Any]] = ContextVar("whyops_trace_langchain", default=_HANDLER)
register_configure_hook(_ATTACHED, inheritable=True, handle_class=Handler)


def attach(sdk: WhyOps | None) -> Attachment:
    """Trace every run in the process; see :func:`whyops_trace.integrations.langchain.attach`."""
    return Attachment(_attachments, sdk, spans_of=_SPANS)
