"""
Messages of LangChain and Pydantic AI, in the form of OpenAI's.

Both wrap whatever a provider says in classes of their own. Everything here works on plain data, and what belongs to
neither is left to others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from whyops_trace._shapes import dict_of, dicts_of, list_of, text_of
from whyops_trace._values.reflection import module_of, mro_of

#: LangChain's words for who speaks. Pieces of a stream are named by their class.
_ROLES: Final = {
    "human": "user", "user": "user", "ai": "assistant", "assistant": "assistant", "system": "system",
    "developer": "developer", "tool": "tool", "function": "function", "AIMessageChunk": "assistant",
    "HumanMessageChunk": "user", "SystemMessageChunk": "system", "ToolMessageChunk": "tool",
    "FunctionMessageChunk": "function",
}  # fmt: skip
#: Beginnings of the modules that have the classes of messages.
_MODULES: Final = ("langchain_core.messages", "pydantic_ai.messages")
#: Beginnings of the ids that LangChain makes itself.
_RUNS: Final = ("lc_run-", "run-")
#: Roles by the kinds of the parts of Pydantic AI's requests.
_PARTS: Final = {
    "system-prompt": "system",
    "user-prompt": "user",
    "tool-return": "tool",
    "retry-prompt": "tool",
}


def messages_of(conversation: Sequence[Any]) -> list[Any]:
    """Return the messages of a conversation. Those of neither framework stay as they are."""
    return [each for message in conversation for each in _messages(message)]


def is_message(value: Any) -> bool:
    """Tell whether any value is a message of one of the frameworks, or the pair that LangChain takes for one."""
    kind = type(value)
    if kind is tuple or kind is list:
        return len(value) == 2 and type(value[0]) is str and type(value[1]) is str and value[0] in _ROLES
    return any(module_of(base).startswith(_MODULES) for base in mro_of(kind))


def _messages(message: Any) -> Iterator[Any]:
    if _is_langchain(message):
        yield _langchain_message(message)
    elif _is_pydantic(message):
        yield from _pydantic_messages(message)
    elif _is_pair(message):
        yield {"role": _ROLES[message[0]], "content": message[1]}
    else:
        yield message


def answer_of(answer: Any) -> dict[str, Any] | None:
    """
    Return an answer in the library's own names, None if it is of neither framework.

    Args:
        answer: A message, the state of a graph that ends with one, or LangChain's result of one or more generations.
    """
    answer = dict_of(answer)
    if _is_langchain(answer):
        return _langchain_answer(answer)
    if _is_pydantic(answer) and answer["kind"] == "response":
        return _pydantic_answer(answer)
    messages = [each for each in list_of(answer.get("messages")) if _is_langchain(each)]
    if messages and messages[-1] is answer["messages"][-1]:
        return _langchain_answer(messages[-1])
    generation = _generation(answer)
    if not _is_langchain(generation.get("message")):
        return {"content": generation["text"]} if isinstance(generation.get("text"), str) else None
    told = _langchain_answer(generation["message"])
    output = dict_of(answer.get("llm_output"))
    told["model"] = told["model"] or text_of(output.get("model_name"))
    told["usage"] = told["usage"] or dict_of(output.get("token_usage"))
    return told


def id_of(answer: Any) -> str:
    """Return the provider's id of an answer of any kind, "" if it is unknown."""
    answer = dict_of(answer)
    answer = dict_of(_generation(answer).get("message")) or answer
    own = text_of(answer.get("id"))
    if own and not own.startswith(_RUNS):
        return own
    about = dict_of(answer.get("response_metadata"))
    return text_of(about.get("id")) or text_of(answer.get("provider_response_id"))


def _generation(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first generation in LangChain's result of one or more, {} if there is none."""
    first: Any = next(iter(list_of(answer.get("generations"))), None)
    return dict_of(first[0] if isinstance(first, list) and first else first)


def chunk_of(item: Any) -> dict[str, Any]:
    """Return the message in an item of a stream: alone, or beside what LangGraph says of it; else an empty dict."""
    message = item[0] if isinstance(item, list) and len(item) == 2 else item
    return dict_of(message) if _is_langchain(message) else {}


def assemble_chunks(items: Sequence[Any]) -> dict[str, Any]:
    """Return the message whose pieces LangChain streamed."""
    texts: list[str] = []
    blocks: dict[Any, dict[str, Any]] = {}
    calls: dict[Any, dict[str, Any]] = {}
    whole: list[Any] = []
    usage: dict[str, Any] = {}
    about: dict[str, Any] = {}
    for chunk in filter(None, map(chunk_of, items)):
        content = chunk.get("content")
        texts += [content] if isinstance(content, str) else ()
        for block in dicts_of(content):
            _grow(blocks.setdefault((block.get("type"), block.get("index")), {}), block)
        pieces = dicts_of(chunk.get("tool_call_chunks"))
        for piece in pieces:
            _grow(calls.setdefault(piece.get("index"), {}), piece)
        whole += () if "tool_call_chunks" in chunk else dicts_of(chunk.get("tool_calls"))
        usage = _sum(usage, dict_of(chunk.get("usage_metadata")))
        about.update(dict_of(chunk.get("response_metadata")))
    text = "".join(texts)
    content = [*([{"type": "text", "text": text}] if text else []), *blocks.values()] if blocks else text
    return {
        "type": "ai",
        "content": content,
        "tool_calls": [*whole, *calls.values()],
        "usage_metadata": usage,
        "response_metadata": about,
    }


def _grow(whole: dict[str, Any], piece: Mapping[str, Any]) -> None:
    """Add a piece to a block or a call: texts that come in pieces are joined, others come once."""
    for name, value in piece.items():
        before = whole.get(name)
        if name in ("args", "input", "reasoning", "text", "thinking") and isinstance(before, str):
            whole[name] = before + text_of(value)
        elif value is not None and value != "":
            whole[name] = value


def _sum(first: dict[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sums of two usages, whose pieces each count what is new."""
    sums = dict(first)
    for name, value in second.items():
        before = sums.get(name)
        if isinstance(value, dict):
            sums[name] = _sum(dict_of(before), value)
        elif type(value) is int:
            sums[name] = value + (before if type(before) is int else 0)
    return sums


def _is_langchain(message: Any) -> bool:
    return (
        isinstance(message, dict)
        and "content" in message
        and message.get("type") in (*_ROLES, "chat", "ChatMessageChunk")
        and ("response_metadata" in message or "additional_kwargs" in message)
    )


def _is_pydantic(message: Any) -> bool:
    return (
        isinstance(message, dict)
        and message.get("kind") in ("request", "response")
        and isinstance(message.get("parts"), list)
    )


def _is_pair(message: Any) -> bool:
    """Return True for the short form of a message: who speaks, and the text."""
    return (
        isinstance(message, list)
        and len(message) == 2
        and all(isinstance(part, str) for part in message)
        and message[0] in _ROLES
    )


def _call(name: Any, arguments: Any, call_id: Any) -> dict[str, Any]:
    return {"id": call_id, "function": {"name": name, "arguments": {} if arguments is None else arguments}}


def _langchain_calls(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    # What could not be parsed was asked for as well.
    calls = [*dicts_of(message.get("tool_calls")), *dicts_of(message.get("invalid_tool_calls"))]
    return [_call(call.get("name"), call.get("args"), call.get("id")) for call in calls]


def _langchain_message(message: Mapping[str, Any]) -> dict[str, Any]:
    role = _ROLES.get(message["type"]) or text_of(message.get("role")) or "user"
    told = {"role": role, "content": message["content"]}
    if calls := _langchain_calls(message):
        told["tool_calls"] = calls
    kept = ("name", "tool_call_id", "artifact")
    return told | {name: message[name] for name in kept if message.get(name) is not None}


def _langchain_answer(message: Mapping[str, Any]) -> dict[str, Any]:
    about = dict_of(message.get("response_metadata"))
    reasons = (about.get(name) for name in ("finish_reason", "stop_reason", "done_reason"))
    more = dict_of(message.get("additional_kwargs"))
    counts = dict_of(message.get("usage_metadata"))
    read, wrote = dict_of(counts.get("input_token_details")), dict_of(counts.get("output_token_details"))
    return {
        "content": message["content"],
        "tool_calls": _langchain_calls(message),
        "reasoning_content": more.get("reasoning_content"),
        "refusal": more.get("refusal"),
        "finish_reason": next((text_of(reason) for reason in reasons if reason), ""),
        "model": text_of(about.get("model_name")) or text_of(about.get("model")),
        "provider": text_of(about.get("model_provider")),
        "usage": _usage(counts, read.get("cache_read"), read.get("cache_creation"), wrote.get("reasoning"))
        or dict_of(about.get("token_usage")),
    }


def _pydantic_messages(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if message["kind"] == "response":
        answer = _pydantic_answer(message)
        calls = {"tool_calls": answer["tool_calls"]} if answer["tool_calls"] else {}
        yield {"role": "assistant", "content": answer["content"], **calls}
        return
    if instructions := text_of(message.get("instructions")):
        yield {"role": "system", "content": instructions}
    for part in dicts_of(message["parts"]):
        role = _PARTS.get(text_of(part.get("part_kind")), "user")
        if role == "tool" and not part.get("tool_name"):
            role = "user"  # the output was refused, not a tool's call
        told = {"role": role, "content": part.get("content")}
        if role == "tool":
            told |= {"name": part.get("tool_name"), "tool_call_id": part.get("tool_call_id")}
        yield told


def _pydantic_answer(message: Mapping[str, Any]) -> dict[str, Any]:
    parts = dicts_of(message["parts"])
    words = ("text", "thinking", "tool-call")
    kinds = {kind: [part for part in parts if part.get("part_kind") == kind] for kind in words}
    counts = dict_of(message.get("usage"))
    reasoning = dict_of(counts.get("details")).get("reasoning_tokens")
    return {
        "content": "".join(text_of(part.get("content")) for part in kinds["text"]) if kinds["text"] else None,
        "thinking": "\n\n".join(text_of(part.get("content")) for part in kinds["thinking"]),
        "tool_calls": [
            _call(part.get("tool_name"), part.get("args"), part.get("tool_call_id"))
            for part in kinds["tool-call"]
        ],
        "finish_reason": text_of(message.get("finish_reason")),
        "model": text_of(message.get("model_name")),
        "provider": text_of(message.get("provider_name")),
        "usage": _usage(counts, counts.get("cache_read_tokens"), counts.get("cache_write_tokens"), reasoning),
    }


def _usage(counts: Mapping[str, Any], read: Any, written: Any, reasoning: Any) -> dict[str, Any]:
    """Return token counts under OpenAI's names, since as with those the cached ones are in the input."""
    if not counts:
        return {}
    return {
        "prompt_tokens": counts.get("input_tokens"),
        "completion_tokens": counts.get("output_tokens"),
        "total_tokens": counts.get("total_tokens"),
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }
