"""One case with one tool, in a process of its own: ``python -m replays.worker NAME NUMBER`` prints a row of JSON."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable
from typing import Any, Final

from provider import Provider

from . import cases
from .kit import KITS, Kit, Run, script

#: Characters of a message that tell it from others.
_TOLD: Final = 60


def program(agent: Callable[[Kit], Any], kit: Kit) -> Run:
    """Return an agent as a plain function."""

    def run() -> Any:
        made = agent(kit)
        return asyncio.run(made) if inspect.iscoroutine(made) else made

    return run


def mutated(case: cases.Case) -> Callable[[Kit], Any]:
    """Return an agent with one word changed: the last one of those that are the old one."""
    source = textwrap.dedent(inspect.getsource(case.agent))
    source = re.sub(r"\A@case\(.*?\)\n(?=(?:async )?def)", "", source, flags=re.DOTALL)
    before, word, after = source.rpartition(case.old)
    assert word, f"{case.old} is not in {case.title}"
    names: dict[str, Any] = {}
    exec(compile(f"{before}{case.new}{after}", "<mutated>", "exec"), vars(cases), names)
    return names[case.agent.__name__]  # type: ignore[no-any-return]


def tried(run: Callable[[], Any]) -> tuple[Any, str]:
    """Return a result, or what was raised instead, with the exceptions behind it: a client may wrap them."""
    try:
        return run(), ""
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        told: list[str] = []
        behind: BaseException | None = error
        while behind is not None:
            told.append(f"{type(behind).__name__}: {behind}")
            behind = behind.__cause__ or behind.__context__
        return None, "\n".join(told)


def main(name: str, number: int) -> dict[str, Any]:
    """Record, replay, and replay a mutation. Return what came of it."""
    case = cases.CASES[number]
    with Provider() as provider:
        provider.script = script
        kit = KITS[name](provider)
        first, failed = tried(lambda: kit.record(program(case.agent, kit)))
        row: dict[str, Any] = {"tool": name, "case": number, "recorded": failed}
        asked = len(provider.requests)
        kit.ran.clear()
        second, told = tried(lambda: kit.replay(program(case.agent, kit)))
        row |= {"requests": len(provider.requests) - asked, "ran": len(kit.ran), "told": told}
        row["same"] = not failed and not told and second == first
        _, told = tried(lambda: kit.replay(program(mutated(case), kit)))
    is_new = told[:_TOLD] != row["told"][:_TOLD]  # a replay that fails anyhow says the same of a mutation
    row |= {"mutation": told, "named": is_new and any(word in told for word in _words(case, name))}
    return row


def _words(case: cases.Case, name: str) -> list[str]:
    """Return texts of which one names the call that differs: of others the tool or the word is enough."""
    if name == "whyops-trace":
        return [case.named]
    called = case.named.partition("(")[0]
    return [
        case.old,
        case.new,
        *([] if called in ("chat.completions", "responses", "messages") else [called]),
    ]


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
