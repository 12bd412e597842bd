"""What the trace page is made of: readings and their cache, the skeleton, chunks of the transcript, and texts."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from agent_runs import Agent, long, put, shop, stored
from hostile import attacked
from hypothesis import given
from hypothesis import strategies as st
from lines import Process, tool_request, tool_response
from tales import Agent as Teller

from whyops_trace._reading.excerpt import counted
from whyops_trace.analysis import findings
from whyops_trace.exceptions import TraceNotFoundError
from whyops_trace.server import readings
from whyops_trace.server.assets import Assets, Renderer
from whyops_trace.server.readings import Reading, Readings, owners, read
from whyops_trace.server.rendering import in_script, parts, pretty, tokens, visible
from whyops_trace.server.skeleton import children, outer, previews, skeleton, walk
from whyops_trace.server.texts import texts
from whyops_trace.server.trace_page import page
from whyops_trace.server.transcript import chunks
from whyops_trace.store import TraceSummary
from whyops_trace.story import provenance, tell

#: Members by which the store knows a record; it takes none where they are of another type.
KEPT = {"eventType", "traceId", "stepId", "idempotencyKey", "timestamp"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home of its own."""
    return tmp_path / "home"


def shape(reading: Reading, **options: Any) -> dict[str, Any]:
    """The skeleton of a reading, decoded."""
    decoded: dict[str, Any] = json.loads(
        skeleton(reading.story, reading.findings, reading.version, **options)
    )
    return decoded


def test_a_reading_is_made_once_for_all_who_ask_at_the_same_time(home: Path) -> None:
    """They all get the same one, and so does who asks later while nothing was added."""

    async def ask() -> tuple[list[Reading], Reading]:
        kept = Readings(stored(home, shop()))
        together = await asyncio.gather(*(kept.get("shop-run-a") for _ in range(5)))
        return together, await kept.get("shop-run-a")

    together, later = asyncio.run(ask())

    assert {id(reading) for reading in together} == {id(later)}


def test_a_reading_with_its_findings_has_those_of_its_records(home: Path) -> None:
    """Of a short trace too, whose findings are there at once."""
    store = stored(home, shop())

    assert read(store, "shop-run-a").findings == findings(store.events("shop-run-a"))


def test_a_reading_has_the_origins_of_arguments(home: Path) -> None:
    """By the steps of the calls, as the story tells them."""
    store = stored(home, shop())
    reading = read(store, "shop-run-a")

    assert reading.origins == provenance(reading.story) != {}


def test_what_was_recorded_by_hand_in_a_step_belongs_to_its_call() -> None:
    """Thoughts, errors, answers and results have the step for their parent, and are told with their call."""
    agent = Teller()
    step = agent.event("llm_thinking", metadata={"step": "plan"}, content={"thinking": "plan"})
    asked = agent.request({"role": "user", "content": "Which?"}, within=step, function="")
    thought = agent.event("llm_thinking", step, within=step, content={"type": "thinking", "thinking": "Hm."})
    answer = agent.event(
        "llm_response",
        step,
        within=step,
        metadata={"model": "m", "provider": "p"},
        content={"content": "One."},
    )
    called = agent.event(
        "tool_call_request",
        step,
        within=step,
        metadata={"tool": "look"},
        content={"toolCalls": [{"name": "look"}]},
    )
    error = agent.event("error", step, within=step, metadata={"tool": "look"}, content={"message": "no"})
    result = agent.event(
        "tool_call_response",
        step,
        within=step,
        metadata={"tool": "look"},
        content={"toolCalls": [{"name": "look"}], "toolResults": {"error": {"message": "no"}}},
    )

    owned = owners(agent.events, agent.story())
    assert {thought: asked, answer: asked, error: called, result: called} == owned


def test_a_reading_is_made_anew_when_its_trace_has_grown(home: Path) -> None:
    """The version names the state, so that a browser asks again."""
    agent = shop()

    async def ask() -> tuple[Reading, Reading]:
        store = stored(home, gone=False)
        put(store, agent.process.token, agent.events[:10])
        kept = Readings(store)
        before = await kept.get("shop-run-a")
        put(store, agent.process.token, agent.events[10:])
        return before, await kept.get("shop-run-a")

    before, after = asyncio.run(ask())

    assert before.version != after.version
    assert (before.story.turns, after.story.turns) == (2, 7)


def test_a_step_that_ends_makes_another_reading(home: Path) -> None:
    """Though its end is no event that counts, and may come in the same millisecond."""
    process = Process(trace="t")
    begin = process.event("llm_thinking", 1, metadata={"step": "plan"})
    end = process.event("step_end", 1, metadata={"step": "plan", "latencyMs": 0})
    put(store := stored(home, gone=False), process.token, [begin])
    before = read(store, "t").version
    put(store, process.token, [end])

    assert read(store, "t").version != before


def test_readings_go_when_they_take_too_much(home: Path) -> None:
    """The one that was not looked at for longest goes first; one stays in any case."""

    async def ask() -> list[bool]:
        kept = Readings(stored(home, shop("a"), shop("b"), shop("c")), room=1)
        first = await kept.get("a")
        second = await kept.get("b")
        return [await kept.get("b") is second, await kept.get("a") is first]

    assert asyncio.run(ask()) == [True, False]


def test_a_trace_that_is_not_there_is_said_to_each_who_asks(home: Path) -> None:
    """And is looked for again the next time."""

    async def ask() -> list[Any]:
        kept = Readings(stored(home))
        return await asyncio.gather(*(kept.get("none") for _ in range(2)), return_exceptions=True)

    assert [type(one) for one in asyncio.run(ask())] == [TraceNotFoundError] * 2


def test_the_findings_of_a_long_trace_are_worked_out_when_they_are_asked_for(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, whoever asks; until then the reading says that it is an early one."""
    monkeypatch.setattr(readings, "AT_ONCE", 10)

    async def ask() -> tuple[str, list[Reading]]:
        kept = Readings(stored(home, shop()))
        early = await kept.get("shop-run-a")
        assert early.findings is None
        return early.tag, await asyncio.gather(*(kept.complete("shop-run-a") for _ in range(3)))

    tag, complete = asyncio.run(ask())

    assert tag == f"{complete[0].version}-early"
    assert all(reading.findings is not None and reading.tag == reading.version for reading in complete)
    assert complete[0].findings == read(stored(home), "shop-run-a").findings


def test_each_step_belongs_to_a_node(home: Path) -> None:
    """Answers, errors and thoughts lead to the call they are of."""
    reading = read(stored(home, shop()), "shop-run-a")
    shown = {row.node.step for row in walk(reading.story.tree.nodes)}

    assert {reading.node(event["stepId"]) for event in shop().events} <= shown


def test_the_skeleton_has_a_row_for_each_node(home: Path) -> None:
    """In the order they are read, with what the outline and the map show of them."""
    reading = read(stored(home, shop()), "shop-run-a")
    columns = shape(reading)
    failed = columns["state"].index("x")

    assert columns["kind"] == "sltt" + "ltlt" + "s" + "ltltltt" + "l"
    assert columns["depth"] == [0] + 7 * [1] + [0] + 7 * [1] + [0]
    assert [turn for turn in columns["turn"] if turn] == [1, 2, 3, 4, 5, 6, 7]
    assert columns["names"][columns["name"][failed]] == "track"
    assert columns["took"][failed] == 10_000
    assert columns["texts"][str(failed)].startswith("TimeoutError")
    assert columns["links"][str(columns["step"][failed])] == [0, 16]
    assert len(columns["stamps"]) == len(reading.story.sections)


def test_times_count_from_where_the_block_was_entered() -> None:
    """Which is before the first event in it: what was done until then shows as a gap at the beginning."""
    process = Process()
    events = [
        tool_request(process, 1, at=300),
        tool_response(process, 2, 1, at=400),
        process.event("trace_end", 1, metadata={"latencyMs": 500}, at=500, end=True),
    ]
    columns = json.loads(skeleton(tell(events), [], "1"))

    assert (columns["start"], columns["duration"]) == ([300], 500)


def test_the_skeleton_of_ten_thousand_events_is_small(home: Path) -> None:
    """It has no texts of calls that went well."""
    reading = read(stored(home, long()), "long-run-b")
    encoded = skeleton(reading.story, reading.findings, reading.version)

    assert reading.summary.event_count > 10_000
    assert len(gzip.compress(encoded, 5)) < 100_000


def test_of_a_huge_trace_what_lies_deep_is_left_out_until_it_is_asked_for(home: Path) -> None:
    """The first levels and all failures are there; the rest is counted, and given by its node."""
    agent = Agent("deep", "Go deep.")
    outer_step = agent.step("one")
    inner = agent.step("two")
    agent.step("three")
    agent.tool("fine", {}, {})
    agent.within = inner
    agent.tool("broken", {}, error="ValueError: no")
    store = stored(home, agent)
    reading = read(store, "deep")

    rows = [(row.node.name, row.depth, row.hidden) for row in outer(reading.story.tree.nodes)]
    below = json.loads(children(reading.story, inner))
    assert rows == [("one", 0, 0), ("two", 1, 2), ("broken", 2, 0)]
    assert [below["names"][name] for name in below["name"]] == ["three", "fine", "broken"]
    assert below["depth"] == [0, 1, 0]
    assert json.loads(children(reading.story, 999)) == {}
    assert shape(reading, limit=3)["hidden"] == {"1": 2}
    assert outer_step


def test_a_section_that_changes_has_another_stamp(home: Path) -> None:
    """So a page knows which cards to fetch again."""
    agent = Agent("t", "Do it.")
    asked = agent.turn("", ("work", {}))
    agent.turn("Meanwhile.")
    request = agent.open_tool("work", {}, by=asked)
    store = stored(home, agent, gone=False)
    before = shape(read(store, "t"))["stamps"]
    known = len(agent.events)
    agent.answer(request, "work", "done")
    put(store, agent.process.token, agent.events[known:])
    after = shape(read(store, "t"))["stamps"]

    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True]


def test_a_failure_has_another_stamp_once_it_was_followed(home: Path) -> None:
    """As its card says then what was done next."""
    agent = Agent("t", "Do it.")
    asked = agent.turn("", ("work", {}))
    agent.tool("work", {}, by=asked, error="OSError: no")
    store = stored(home, agent, gone=False)
    before = shape(read(store, "t"))["stamps"]
    known = len(agent.events)
    agent.turn("It does not work.")
    put(store, agent.process.token, agent.events[known:])
    after = shape(read(store, "t"))["stamps"]

    assert before[0] != after[0]


def test_previews_that_the_skeleton_has_no_room_for_are_given_by_steps(home: Path) -> None:
    """From one step up to, and without, another; the skeleton says that it lacks them."""
    reading = read(stored(home, shop()), "shop-run-a")
    short, whole = shape(reading, previewed=5), shape(reading)
    texts = {str(whole["step"][int(row)]): text for row, text in whole["texts"].items()}

    assert (short["previewed"], whole["previewed"]) == (False, True)
    assert [text.partition(":")[0] for text in short["texts"].values()] == ["TimeoutError", "PolicyError"]
    given = json.loads(previews(reading.story, 1, 999))
    assert {step: text for step, text in given.items() if text} == texts
    assert set(json.loads(previews(reading.story, 11, 14))) == {"11"}


@pytest.mark.parametrize(
    ("cached", "said"),
    [(True, ""), (False, "The cache ends here."), (None, "The cache may end here.")],
    ids=["kept", "lost", "unknown"],
)
def test_a_changed_prompt_ends_the_cache_only_where_its_share_fell(
    cached: bool | None, said: str, home: Path
) -> None:
    """A provider may cache what comes before the change, or nothing at all."""
    agent = Agent("t", "Do it." * 100)
    for answer in ("Well.", "Done."):
        agent.turn(answer)
        agent.messages.append({"role": "user", "content": "And?"})
    agent.messages[0] = {"role": "system", "content": "Be brief."}
    agent._sent *= cached is True
    agent.turn("Bye.")
    if cached is None:
        del agent.events[-1]["metadata"]["usage"]
    store = stored(home, agent)
    shown = page(read(store, "t"), Renderer(Assets()), "")

    assert "System prompt changed" in shown
    assert (
        "".join(line for line in ("The cache ends here.", "The cache may end here.") if line in shown) == said
    )


@pytest.mark.parametrize("instead", [[], [{"role": "user", "content": "In short: done."}]])
def test_messages_that_only_went_are_folded(instead: list[dict[str, Any]], home: Path) -> None:
    """An agent that sends the latest messages only would else show them at each turn."""
    agent = Agent("t", "Do it.")
    for answer in ("Well.", "Done."):
        agent.turn(answer)
        agent.messages.append({"role": "user", "content": f"And {answer}"})
    agent.messages[2:4] = instead
    agent.turn("Bye.")
    shown = page(read(stored(home, agent), "t"), Renderer(Assets()), "")

    assert "Earlier messages changed" in shown
    assert ('<details class="fold" open><summary>what changed' in shown) == bool(instead)


def test_chunks_hold_each_section_once(home: Path) -> None:
    """One after the other, from the first to the last."""
    story = read(stored(home, long(turns=40)), "long-run-b").story
    made = chunks(story)

    assert [chunk.first for chunk in made] == [0, *(chunk.end for chunk in made[:-1])]
    assert made[-1].end == len(story.sections)
    assert all(chunk.height >= 900 for chunk in made[:-1])


def test_a_hostile_trace_has_a_reading(home: Path) -> None:
    """Its skeleton can stand in a script element."""
    reading = read(stored(home, attacked()), "attacked")
    encoded = in_script(skeleton(reading.story, reading.findings, reading.version).decode())

    assert not set("<>&") & set(encoded)
    assert json.loads(encoded) == shape(reading)


#: What no program of ours would record, but somebody may send.
STRANGE: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
def test_a_page_is_made_of_any_records(data: st.DataObject) -> None:
    """Whatever stands in the contents and metadata of a run: a wrong type, nothing, far too much."""
    events = json.loads(json.dumps(shop().events))
    for _ in range(data.draw(st.integers(1, 4))):
        place: Any = data.draw(st.sampled_from(events))
        for key in ("metadata", "content"):
            if key in place and data.draw(st.booleans()):
                place = place[key]
                break
        while isinstance(place, (dict, list)) and place:
            keys = sorted(place.keys() - KEPT) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if data.draw(st.booleans()) or not isinstance(place[key], (dict, list)):
                place[key] = data.draw(STRANGE)
                break
            place = place[key]
    summary = TraceSummary("strange")
    story = tell(events)
    found = findings(events)
    reading = Reading(summary, "1", story, owners(events, story), 0, [], ended=lambda _: True, findings=found)

    assert "<html" in page(reading, Renderer(Assets()), "/t/strange")
    assert texts(story)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain\ttext\nthere", "plain\ttext\nthere"),
        ("a\r\nb\rc", "a\nb\\x0dc"),
        ("\x00\x1b[31m\x7f\x9b", "\\x00\\x1b[31m\\x7f\\x9b"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("half \ud800 pair", "half \\ud800 pair"),
        ("Grüße 你好 👍🏽 👩\u200d💻", "Grüße 你好 👍🏽 👩\u200d💻"),
    ],
)
def test_what_cannot_be_seen_is_spelled_out(text: str, seen: str) -> None:
    """Controls, marks of direction and characters without width have a form that can be read."""
    assert visible(text) == seen


@given(st.text(st.characters(categories=["Cs", "C", "L", "P"])))
def test_what_is_seen_can_be_sent(text: str) -> None:
    """Any text at all becomes one that UTF-8 can hold."""
    assert visible(text).encode().decode() == visible(text)


@pytest.mark.parametrize(
    ("thing", "shown"),
    [
        ("text", "text"),
        ('{"a": 1}', '{"a": 1}'),
        ("[not json", "[not json"),
        ({"a": [1, "x"]}, '{"a": [1, "x"]}'),
        ({"a": "x" * 80}, '{\n  "a": "' + "x" * 80 + '"\n}'),
        (None, "null"),
        (12.5, "12.5"),
        (
            {"content": [{"type": "text", "text": "a\nb"}, {"type": "text", "text": "c"}], "isError": False},
            "a\nb\nc",
        ),
        ({"result": {"content": [{"type": "text", "text": '{"a": 1}', "annotations": None}]}}, '{"a": 1}'),
        ('[{"type": "text", "text": "a"}]', "a"),
        (
            [{"type": "text", "text": "a"}, {"type": "image"}],
            '[{"type": "text", "text": "a"}, {"type": "image"}]',
        ),
        (
            {"content": [{"type": "text", "text": "a"}], "id": 7},
            '{"content": [{"type": "text", "text": "a"}], "id": 7}',
        ),
        ({"content": []}, '{"content": []}'),
    ],
)
def test_values_are_shown_as_one_reads_them(thing: object, shown: str) -> None:
    """Texts as they are, small values on a line, larger ones indented."""
    assert pretty(thing) == shown


def test_a_value_too_deep_to_print_is_shown_as_such() -> None:
    """Nothing that a trace holds makes a page fail."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    assert pretty(deep) == "…"
    assert pretty("[" * 10_000) == "[" * 10_000


def test_a_long_text_is_cut_where_a_line_ends() -> None:
    """What comes after can be unfolded, and beyond a limit is not in the page."""
    lines = "\n".join(["x" * 99] * 300)
    begin, rest, left = parts(lines)

    assert (len(begin), rest[:3], len(begin) + 1 + len(rest) + left) == (1199, "xxx", len(lines))
    assert parts("short") == ("short", "", 0)
    assert parts("w " * 1_000)[0] == "w " * 599 + "w"
    assert len(parts("x" * 2_000)[0]) == 1_200


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (None, "0"),
        (0, "0"),
        (999, "999"),
        (1_000, "1.0k"),
        (42_400, "42k"),
        (1_300_000, "1.3M"),
        (-1_500, "-1.5k"),
    ],
)
def test_tokens_are_counted_roughly(count: int | None, shown: str) -> None:
    """Two digits are enough to compare."""
    assert tokens(count) == shown


def test_a_count_has_its_noun() -> None:
    """One of it, or many."""
    assert [counted(1, "turn"), counted(1_204, "turn")] == ["1 turn", "1,204 turns"]
