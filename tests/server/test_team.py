"""The agents of a trace: whose each call is, what each did, and who brought in whom."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_runs import Agent, shop, stored, team
from axe_playwright_python.sync_playwright import Axe
from browser import Tab, browser, ready, served, tab
from hostile import ATTACK
from playwright.sync_api import Browser, expect

from whyops_trace.server.graph import drawing
from whyops_trace.server.team import Link, Member, Team
from whyops_trace.story import tell

__all__ = ["browser"]


def of(agent: Agent) -> Team:
    """The agents of a run."""
    return Team(tell(agent.events, priced=True))


def chat(*names: str, prompts: bool = False) -> Agent:
    """A run in which each turn is in a step of the name of who takes it, with a prompt of its own if told so."""
    agent = Agent("chat", "Plan my trip.")
    for name in names:
        step = agent.step(name)
        if prompts:
            agent.messages[0]["content"] = f"You are {name}."
        agent.turn(f"{name} says something.")
        agent.leave(step, name)
    return agent


def test_each_agent_has_what_it_did_and_whom_it_brought_in() -> None:
    """Its turns, tools, failures, tokens and cost, without those of the agents that it called."""
    triage, clerk, refunds = of(team()).members

    assert [(one.name, one.turns, one.tools, one.errors) for one in (triage, clerk, refunds)] == [
        ("triage", 1, 1, 0),
        ("clerk", 2, 0, 0),
        ("refunds", 3, 2, 1),
    ]
    assert triage.links == [Link("called", "clerk", 2), Link("handed off to", "refunds", 1)]
    assert clerk.links == refunds.links == []
    assert all(one.tokens and one.cost for one in (triage, clerk, refunds))


def test_steps_that_take_turns_are_agents() -> None:
    """Where no framework says who is one, the order in which they follow each other is all that is known."""
    members = of(chat("planner", "surfer", "planner", "surfer", "critic", "planner")).members

    assert [(one.name, one.turns) for one in members] == [("planner", 3), ("surfer", 2), ("critic", 1)]
    assert members[0].links == [Link("was followed by", "surfer", 2)]
    assert members[1].links == [
        Link("was followed by", "planner", 1),
        Link("was followed by", "critic", 1),
    ]


def test_steps_with_prompts_of_their_own_are_agents() -> None:
    """Even if each speaks once."""
    members = of(chat("expert", "verifier", "verifier", "programmer", prompts=True)).members

    assert [(one.name, one.turns) for one in members] == [("expert", 1), ("verifier", 2), ("programmer", 1)]


@pytest.mark.parametrize(
    "agent",
    [shop(), chat("plan", "act"), chat("plan", "plan", "plan"), chat(*(f"batch {one}" for one in range(9)))],
    ids=["two steps", "one after the other", "one name", "batches"],
)
def test_the_steps_of_one_agent_are_no_agents(agent: Agent) -> None:
    """A plan and what follows from it are the work of one."""
    assert of(agent).members == []


def test_a_single_agent_of_a_framework_is_no_team() -> None:
    """All that happens is its own."""
    agent = Agent("alone", "Hello")
    agent.step("alone", "agent")
    agent.turn("Hello.")

    assert of(agent).members == []


def drawn(agent: Agent) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Return the places of the agents in the drawing of a run, and the ways of its arrows by their labels."""
    graph = drawing(of(agent).members)
    assert graph is not None
    for box in graph.boxes:
        assert 0 <= box.x <= graph.width - 160
        assert 0 <= box.y <= graph.height - 58
    assert all(0 < arrow.y < graph.height for arrow in graph.arrows)
    return {box.name: (box.x, box.y) for box in graph.boxes}, {each.label: each.way for each in graph.arrows}


def test_agents_are_drawn_beside_whoever_brought_them_in() -> None:
    """Each in a place of its own, from left to right, with what brought it in at the arrow."""
    places, ways = drawn(team())

    assert places["triage"][0] < places["clerk"][0] == places["refunds"][0]
    assert places["clerk"][1] != places["refunds"][1]
    assert ways == {"called \u00d72": "called", "handed off": "handed"}


def test_agents_that_take_turns_are_drawn_with_arrows_back() -> None:
    """Nobody begins in a circle but the one that came first."""
    places, ways = drawn(chat("planner", "surfer", "planner", "critic", "planner"))

    assert places["planner"][0] < places["surfer"][0] == places["critic"][0]
    assert set(ways.values()) == {"followed"}


def test_a_long_name_keeps_its_end_in_the_drawing() -> None:
    """Names of many workers differ in a number."""
    names = [f"the worker with a long name, number {number}" for number in (1, 2)]
    places, _ = drawn(chat(*names, *names))

    assert [name[-7:] for name in places] == ["umber 1", "umber 2"]
    assert all(len(name) <= 20 for name in places)


def test_only_a_few_agents_that_have_to_do_with_each_other_are_drawn() -> None:
    """Thirteen would be a tangle, and without arrows a drawing says nothing."""
    strangers = [Member(name, 1, turns=1) for name in "ab"]
    crowd = [Member(str(one), 1, turns=1, links=[Link("called", "0", 1)]) for one in range(13)]

    assert drawing(strangers) is None
    assert drawing(crowd) is None
    assert drawing(crowd[:12]) is not None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_drawing_is_on_the_page(tmp_path: Path, browser: Browser, scheme: str) -> None:
    """Its labels are text, whatever they hold, and it is read and moved without a mouse."""
    stored(tmp_path, team(), chat(ATTACK[:60], "critic", ATTACK[:60], "critic")).close()
    options = {"color_scheme": scheme, "viewport": {"width": 390, "height": 844}}
    with served(tmp_path) as url, tab(browser, url, **options) as opened:
        page = ready(opened.open("/t/team"))
        expect(page.locator(".graph .name")).to_have_text(["triage", "clerk", "refunds"])
        expect(page.locator(".graph .bad")).to_have_text("1 failed")
        expect(page.get_by_role("img", name="Who brought in whom")).to_be_visible()
        assert Axe().run(page).violations_count == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 390

        page = ready(opened.open("/t/chat"))
        expect(page.locator(".graph title").first).to_have_text(ATTACK[:60])
        expect(page.locator(".graph :is(script, img, iframe)")).to_have_count(0)


@pytest.fixture
def shown(tmp_path: Path, browser: Browser) -> Iterator[Tab]:
    """A tab of a server with the run of three agents."""
    stored(tmp_path, team()).close()
    with served(tmp_path) as url, tab(browser, url) as opened:
        yield opened


def test_cards_and_outline_name_the_agent(shown: Tab) -> None:
    """In place of the model."""
    page = ready(shown.open("/t/team"))

    expect(page.locator("[data-turn='2'] > header")).to_contain_text("clerk")
    expect(page.locator("[data-turn='4'] > header")).to_contain_text("refunds")
    row = page.locator("[role=row]", has_text="Turn 4")
    expect(row).to_contain_text("refunds")
    expect(row).not_to_contain_text("gpt-4o")


def test_the_head_tells_of_the_agents(shown: Tab) -> None:
    """Each is a row, its name a link to where it came in."""
    page = ready(shown.open("/t/team"))
    rows = page.locator(".team tr")

    expect(rows.nth(1)).to_contain_text("called clerk \u00d72")
    expect(rows.nth(1)).to_contain_text("handed off to refunds")
    expect(rows.nth(3).locator(".bad")).to_have_text("1")
    rows.nth(3).get_by_role("link", name="refunds").click()
    expect(page.locator(".chosen")).to_contain_text("agent refunds")
    assert Axe().run(page).violations_count == 0


def test_each_agent_has_lanes_of_its_own(shown: Tab) -> None:
    """Also where an agent works for another one; the first lane of each has its name."""
    page = ready(shown.open("/t/team?view=timeline"))
    lanes = page.evaluate(
        """async () => {
          const { Trace } = await import("whyops/trace-data");
          const { arrange } = await import("whyops/trace-map");
          const trace = new Trace(JSON.parse(document.getElementById("skeleton").textContent));
          const count = arrange(trace);
          const lanes = Object.groupBy(trace.rows, ({ agent }) => agent);
          const of = (rows) => [...new Set(rows.map(({ lane }) => lane))].sort((a, b) => a - b);
          return [count, trace.bands, Object.entries(lanes).map(([name, rows]) => [name, of(rows)])];
        }"""
    )

    assert lanes == [
        9,
        [{"name": "triage", "lane": 0}, {"name": "clerk", "lane": 3}, {"name": "refunds", "lane": 6}],
        [["triage", [1, 2]], ["clerk", [4, 5]], ["refunds", [7, 8]]],
    ]
