"""
Requests to models and their answers, read from plain data in the shapes of OpenAI and Anthropic.

Everything here works on plain dicts, lists and texts (see :func:`whyops_trace._values.mending.plain`), so no object
of the user's is touched. Any subset of a shape is accepted: missing members stay empty.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from whyops_trace._checks import MAX_FINISH_REASON
from whyops_trace._models.frameworks import answer_of, messages_of
from whyops_trace._models.provider_tools import ProviderCall, read_blocks, read_executed, read_items
from whyops_trace._models.usage import read_usage
from whyops_trace._shapes import dict_of, dicts_of, list_of, text_of
from whyops_trace.types import TokenUsage, ToolCallItem

#: Parameters that hold the conversation, in the order of the search.
_MESSAGES: Final = ("messages", "input", "prompt", "contents", "question", "query", "text")
#: Parameters that hold the system prompt.
_SYSTEM: Final = ("system", "system_prompt", "systemPrompt", "instructions")
#: Members of an answer in the library's own names, and of the message of a chat completion.
_OWN: Final = frozenset(
    {"annotations", "audio", "content", "finishReason", "finish_reason", "function_call", "model", "provider",
     "reasoning", "reasoning_content", "refusal", "role", "text", "thinking", "toolCalls", "tool_calls", "usage"}
)  # fmt: skip
#: OpenAI's own tools that the agent runs, by the type of the item that calls them. The server runs all others.
_BUILT_IN: Final = {
    "apply_patch_call": "apply_patch",
    "computer_call": "computer",
    "local_shell_call": "local_shell",
    "shell_call": "shell",
}
_CALLS: Final = ("function_call", "custom_tool_call", *_BUILT_IN)
#: Members of a call that hold its arguments.
_ARGUMENTS: Final = ("arguments", "input", "actions", "action", "operation")
#: Roles and item types of a tool's result in a request.
TOOL_ROLES: Final = ("tool", "function")
TOOL_ITEMS: Final = ("tool_result", *(f"{call}_output" for call in _CALLS))


class Request(msgspec.Struct):
    """
    A request to a model.

    Attributes:
        messages: ``[{"role", "content"}]``.
        tool: The tool whose result is the last message, "" for a new turn.
        output: The result of that tool.
        metadata: ``systemPrompt``, ``tools`` and ``params``, each only if present; and ``system``, the prompt as it was
            given, if that is no text.
    """

    messages: list[Any] = []
    tool: str = ""
    output: Any = None
    metadata: dict[str, Any] = {}


class Turn(msgspec.Struct):
    """
    An answer of a model.

    Attributes:
        content: Its text, otherwise the text of its refusal or its speech; None if there is none.
        thinking: Its thinking blocks, as contents of ``llm_thinking`` events.
        tool_calls: The tool calls that it requests.
        finish_reason: The reason to stop, "" if unknown.
        model: The model that answered, "" if unknown.
        provider: "openai" or "anthropic" by the answer's shape, else "".
        usage: Token counts. Prompt tokens exclude the cached ones.
        refusal: The text of its refusal, "" if it did not refuse or gave no text.
        id: The provider's id of the answer, "" if unknown.
        raw: The answer as the provider has it, {} if it has the form of neither OpenAI nor Anthropic.
        others: The other choices, where several were requested.
        ran: The calls of tools that the provider ran itself.
    """

    content: str | None = None
    thinking: list[dict[str, Any]] = []
    tool_calls: list[ToolCallItem] = []
    finish_reason: str = ""
    model: str = ""
    provider: str = ""
    usage: TokenUsage = {}
    refusal: str = ""
    id: str = ""
    raw: dict[str, Any] = {}
    others: list[Turn] = []
    ran: list[ProviderCall] = []

    def said(self) -> dict[str, Any]:
        """Return its words, as the content of its event."""
        content: dict[str, Any] = {}
        if self.content is not None:
            content["content"] = self.content
        if self.tool_calls:
            content["toolCalls"] = self.tool_calls
        if self.refusal:
            content["refusal"] = self.refusal
        return content

    def finish(self) -> dict[str, str]:
        """Return its reason to stop, as a member of that content; empty if it is unknown."""
        return {"finishReason": self.finish_reason[:MAX_FINISH_REASON]} if self.finish_reason else {}


class Vectors(msgspec.Struct, frozen=True):
    """
    The result of an embedding call.

    Attributes:
        count: Number of vectors.
        dimensions: Length of the first vector, 0 if unknown.
        encoding: "float", or "base64" if the vectors came as text.
    """

    count: int
    dimensions: int
    encoding: str = "float"


def conversation_in(arguments: Mapping[str, Any]) -> str | None:
    """Return the name of the argument that holds the conversation, None if there are no arguments."""
    named = (name for name in _MESSAGES if arguments.get(name) is not None)
    return next(named, None) or next(iter(arguments), None)


def read_request(arguments: Mapping[str, Any]) -> Request:
    """Read a request to a model from the plain arguments, by name, of the function that makes it."""
    rest = dict(arguments)
    key = conversation_in(rest)
    conversation = rest.pop(key) if key is not None else None
    system = next((rest.pop(name) for name in _SYSTEM if rest.get(name)), None)
    tools = rest.pop("tools", None)
    metadata: dict[str, Any] = {}
    if system:
        metadata["systemPrompt"] = _text(system)
        if not isinstance(system, str):
            metadata["system"] = system
    if tools:
        metadata["tools"] = tools
    if rest:
        metadata["params"] = rest
    messages = _messages(conversation)
    request = Request(messages=messages, metadata=metadata)
    if messages:
        request.tool, request.output = _tool_result(messages)
    return request


def _messages(conversation: Any) -> list[Any]:
    if isinstance(conversation, str):
        return [{"role": "user", "content": conversation}]
    if isinstance(conversation, dict):  # a message, or what holds them, as LangChain's prompts do
        return messages_of(list_of(conversation.get("messages")) or [conversation])
    if isinstance(conversation, list):
        return messages_of(conversation)
    return [] if conversation is None else [{"role": "user", "content": conversation}]


def _tool_result(messages: list[Any]) -> tuple[str, Any]:
    """Return the name and output of the tool whose result ends the conversation, or ``("", None)``."""
    last = dict_of(messages[-1])
    if last.get("role") in TOOL_ROLES:
        return _tool_name(messages, last.get("tool_call_id"), last), last.get("content")
    # The user's additions to tool results come after them in the same message.
    for block in reversed([last, *dicts_of(last.get("content"))]):
        if block.get("type") in TOOL_ITEMS:
            call_id = block.get("tool_use_id") or block.get("call_id")
            return _tool_name(messages, call_id, block), block.get("content", block.get("output"))
    return "", None


def _tool_name(messages: list[Any], call_id: Any, result: dict[str, Any]) -> str:
    """Return the name of the tool of a result: its own, else that of the call with the same id."""
    if name := _name(result):
        return name
    for message in reversed(dicts_of(messages)) if call_id is not None else ():
        for call in [*dicts_of(message.get("tool_calls")), *dicts_of(message.get("content")), message]:
            if call_id in (call.get("id"), call.get("call_id")) and (name := _name(call)):
                return name
    return "tool"


def read_response(answer: Any) -> Turn:
    """
    Read a model's answer from plain data.

    Known shapes are: text; OpenAI's chat completion, text completion and response objects, and the message of the
    first; Anthropic's message; the messages of LangChain and Pydantic AI; and a dict in this library's own names
    (``content``, ``tool_calls``, ``finish_reason``, ``usage``, ``model``, ``provider``). The first of several choices
    counts, and has the others beside it.

    Tool calls are those that the agent runs, without those that the provider ran itself and without empty ones, which
    some servers send with every message. The input of a custom tool is
    any text and takes the place of the arguments.
    """
    if isinstance(answer, str):
        return Turn(content=answer)
    if not isinstance(answer, dict):
        return Turn(content=None if answer is None else _compact(answer))
    if told := answer_of(answer):
        answer = told
        turn = _read_own(answer)
    elif isinstance(answer.get("choices"), list):
        turn = _read_chat(answer)
    elif isinstance(answer.get("output"), list):
        turn = _read_responses(answer)
    elif isinstance(answer.get("content"), list):
        turn = _read_message(answer)
    else:
        turn = _read_own(answer)
    turn.model = text_of(answer.get("model"))
    turn.usage = read_usage(answer)
    return turn


def is_of_provider(answer: Any) -> bool:
    """Return True if plain data has the form of an answer of OpenAI or Anthropic."""
    return any(isinstance(dict_of(answer).get(name), list) for name in ("choices", "output", "content"))


def read_error(answer: Any) -> dict[str, Any]:
    """Return the error that an answer, or its first choice, reports; an empty dict if it reports none."""
    answer = dict_of(answer)
    error = error_of(answer) or error_of(next(iter(dicts_of(answer.get("choices"))), {}))
    status = error.get("code")
    return {**error, "status": status} if type(status) is int and 400 <= status < 600 else error


def error_of(part: Any) -> dict[str, Any]:
    """Return the error of an answer, or of an item of a stream; an empty dict if it reports none."""
    error = dict_of(part).get("error")
    if isinstance(error, str) and error:
        return {"message": error}
    if "error" in (dict_of(part).get("type"), dict_of(part).get("object")) and not dict_of(error):
        return {"message": text_of(part.get("message")), "code": part.get("code")}
    return dict_of(error)


def _read_chat(answer: dict[str, Any]) -> Turn:
    turn, *others = [_read_choice(choice) for choice in dicts_of(answer["choices"])] or [Turn()]
    turn.provider = "openai"
    turn.others = others
    return turn


def _read_choice(choice: dict[str, Any]) -> Turn:
    turn = _read_chat_message(dict_of(choice.get("message")) or dict_of(choice.get("delta")) or choice)
    turn.finish_reason = text_of(choice.get("finish_reason"))
    return turn


def _read_chat_message(message: dict[str, Any]) -> Turn:
    turn = Turn()
    content = message.get("content", message.get("text"))
    blocks = [block for block in list_of(content) if not is_thought(block)]
    turn.refusal = text_of(message.get("refusal")) or _joined(content, "refusal")
    speech = text_of(dict_of(message.get("audio")).get("transcript"))
    text = _text(blocks if isinstance(content, list) else content)
    turn.content = text or turn.refusal or speech or (None if content is None else "")
    calls = [
        *dicts_of(message.get("tool_calls") or message.get("toolCalls")),
        dict_of(message.get("function_call")),
    ]
    turn.tool_calls = [_tool_call(call) for call in calls if _is_call(call)]
    turn.ran = read_executed(message)
    thoughts = [thought_of(block) for block in dicts_of(content)]
    if not any(thoughts):
        # DeepSeek and its followers use reasoning_content, OpenRouter and others reasoning.
        members = (text_of(message.get(name)) for name in ("thinking", "reasoning_content", "reasoning"))
        thoughts = [thought for thought in members if thought][:1]
    turn.thinking = [{"type": "thinking", "thinking": thought} for thought in thoughts if thought]
    return turn


def is_thought(block: Any) -> bool:
    """Return True for a block of thinking in the content of a chat message."""
    return dict_of(block).get("type") in ("thinking", "reasoning")


def thought_of(block: dict[str, Any]) -> str:
    """
    Return the text of a block of thinking in the content of a chat message, "" for any other block.

    Mistral has a list of texts in it (https://docs.mistral.ai/capabilities/reasoning), Databricks a summary
    (https://docs.databricks.com/aws/en/machine-learning/model-serving/query-reason-models), others the text itself.
    """
    texts = (
        (block.get(name) for name in ("thinking", "summary", "reasoning", "text"))
        if is_thought(block)
        else ()
    )
    return next((thought for thought in map(_text, texts) if thought), "")


def _read_responses(answer: dict[str, Any]) -> Turn:
    turn = Turn(provider="openai", finish_reason=text_of(answer.get("status")))
    if turn.finish_reason == "incomplete":
        reason = dict_of(answer.get("incomplete_details")).get("reason")
        turn.finish_reason = text_of(reason) or turn.finish_reason
    items = [(text_of(item.get("type")), item) for item in dicts_of(answer["output"])]
    # A call whose output is in the same answer was run by the server.
    answered = [text_of(item.get("call_id")) for kind, item in items if kind.endswith("_output")]
    turn.ran = read_items((item for _, item in items), _CALLS)
    texts = []
    for kind, item in items:
        if kind == "message":
            texts.append(_text(item.get("content")))
            turn.refusal += _joined(item.get("content"), "refusal")
        elif kind in _CALLS and item.get("call_id") not in answered:
            turn.tool_calls.append(_tool_call(item))
        elif kind == "reasoning":
            summary = _joined(item.get("summary"), "text", "\n\n") or _text(item.get("content"))
            turn.thinking += [{"type": "thinking", "thinking": summary}] if summary else []
    turn.content = "".join(texts) or turn.refusal or ("" if texts else None)
    return turn


def _read_message(answer: dict[str, Any]) -> Turn:
    turn = Turn(provider="anthropic", finish_reason=text_of(answer.get("stop_reason")))
    if turn.finish_reason == "refusal":
        turn.refusal = text_of(dict_of(answer.get("stop_details")).get("explanation"))
    turn.ran = read_blocks(dicts_of(answer["content"]))
    texts = []
    for block in dicts_of(answer["content"]):
        kind = block.get("type")
        if kind == "text":
            texts.append(text_of(block.get("text")))
        elif kind == "tool_use":
            turn.tool_calls.append(_tool_call(block))
        elif kind == "thinking":
            thought = {"type": kind, "thinking": text_of(block.get("thinking"))}
            signature = text_of(block.get("signature"))
            turn.thinking.append(thought | {"signature": signature} if signature else thought)
        elif kind == "redacted_thinking":
            turn.thinking.append({"type": kind, "data": text_of(block.get("data"))})
    turn.content = "".join(texts) or turn.refusal or ("" if texts else None)
    return turn


def _read_own(answer: dict[str, Any]) -> Turn:
    turn = _read_chat_message(answer)
    turn.provider = text_of(answer.get("provider"))
    turn.finish_reason = text_of(answer.get("finish_reason") or answer.get("finishReason"))
    has_other_members = any(value is not None and key not in _OWN for key, value in answer.items())
    if turn.content is None and not turn.tool_calls and has_other_members:
        turn.content = _compact(answer)
    return turn


def read_embedding(answer: Any) -> Vectors:
    """Return the number, the length and the encoding of the vectors of an embedding call."""
    if isinstance(answer, dict):
        shape = _shape(answer)
        if shape:
            return Vectors(shape[0], shape[1]) if len(shape) > 1 else Vectors(1, shape[0])
        answer = answer.get("data", answer.get("embeddings", answer.get("embedding")))
    vectors = [dict_of(item).get("embedding", item) for item in list_of(answer)]
    first = vectors[0] if vectors else []
    if isinstance(first, (int, float)):
        return Vectors(1, len(vectors))
    if isinstance(first, str):
        return Vectors(len(vectors), _floats(first), "base64")
    return Vectors(len(vectors), len(first) if isinstance(first, list) else next(iter(_shape(first)), 0))


def _floats(encoded: str) -> int:
    """Return the number of 32-bit floats in a base64 text, 0 if it is not such a text."""
    try:
        size, rest = divmod(len(binascii.a2b_base64(encoded, strict_mode=True)), 4)
    except ValueError:
        return 0
    return 0 if rest else size


def _shape(array: Any) -> list[int]:
    """Return the shape of an array that was too large to be written out."""
    shape = list_of(dict_of(array).get("shape"))
    return shape if all(type(n) is int and n >= 0 for n in shape) else []


def _is_call(call: dict[str, Any]) -> bool:
    """Return True for a tool call that says anything."""
    function = _function(call)
    return bool(_name(call) or call.get("id") or any(function.get(key) for key in _ARGUMENTS))


def _tool_call(call: dict[str, Any]) -> ToolCallItem:
    function = _function(call)
    arguments: Any = next((function[key] for key in _ARGUMENTS if function.get(key) is not None), {})
    item: ToolCallItem = {
        "function": {
            "name": _name(call) or "tool",
            "arguments": arguments if isinstance(arguments, str) else _compact(arguments),
        }
    }
    # An item of a response has an id of its own, and another one that its output names.
    call_id = text_of(call.get("call_id")) or text_of(call.get("id"))
    if call_id:
        item["id"] = call_id
    return item


def _name(call: dict[str, Any]) -> str:
    """Return the name of the tool of a call, or of a result that names it; else ""."""
    built_in = _BUILT_IN.get(text_of(call.get("type")).removesuffix("_output"), "")
    return text_of(_function(call).get("name")) or built_in


def _function(call: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a tool call that holds the tool's name and arguments."""
    return dict_of(call.get("function")) or dict_of(call.get("custom")) or call


def _text(value: Any) -> str:
    """Return the text of a message content: text, or the texts of a list of blocks."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return _joined(value, "text") if isinstance(value, list) else _compact(value)


def _joined(blocks: Any, member: str, separator: str = "") -> str:
    """Return the member *member* of the blocks of a list, and the texts among them, as one text."""
    texts = (item if isinstance(item, str) else dict_of(item).get(member) for item in list_of(blocks))
    return separator.join(text for text in texts if isinstance(text, str))


def _compact(value: Any) -> str:
    return msgspec.json.encode(value).decode()
