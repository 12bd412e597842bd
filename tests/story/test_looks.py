"""Turns that are worth a look in runs of several agents, conversations of each, and the first screen."""

from __future__ import annotations

from typing import Any

from tales import USER, Agent

from whyops_trace.story import Story, moments, why

TASK = {"role": "user", "content": "How many penguins of the Antarctic island have a beak longer than 42 mm?"}


class Chat(Agent):
    """Several agents who speak one after the other, each in a step of its name."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[Any] = [TASK]

    def says(self, name: str, text: str, *, prompt: str = "") -> int:
        """Record what an agent says; return the step of its answer."""
        step = self.step(name)
        return self.turn(self.messages, text, within=step, systemPrompt=prompt or f"You are {name}.")


def chat() -> Chat:
    """Return a run in which an agent assumes what it should look up, and another one's code fails."""
    run = Chat()
    run.says(
        "Manager",
        "Find the penguins of the Antarctic island that have a beak longer than 42 mm, and count them.",
    )
    run.says(
        "Coder",
        "I run this code to read the file of the penguins:\n```python\nprint(open('penguins.csv'))\n```",
    )
    run.tool("execute_code", {"code": "..."}, "exitcode: 1\nFileNotFoundError: penguins.csv")
    run.says(
        "Analyst",
        "Since there is no file, let's assume a sample dataset of penguins, which gives us 12 of them.",
    )
    run.says("Checker", "The count looks right to me, and nobody has to look at it again, I would say.")
    run.end()
    return run


def looked(story: Story) -> list[str]:
    """Return the lines that name turns worth a look."""
    return [line.text for line in story.whys if line.kind in ("look", "early")]


def test_turns_are_named_with_the_reason_and_their_words() -> None:
    """Code that failed, and an assumption; who briefs the others is not meant, and neither is who only agrees."""
    first, second = looked(chat().story())

    assert first.startswith('turn 2 (Coder) led to execute_code, which said that it failed: "I run this code')
    assert second.startswith('turn 3 (Analyst) says assume: "Since there is no file')


def test_a_brief_that_is_about_something_else_comes_first() -> None:
    """It shares few words with what was asked."""
    run = Chat()
    run.says(
        "Manager", "Write a poem on the sea, with four verses, and with a rhyme in every second line of it."
    )
    run.says(
        "Poet", "The sea is wide, the sea is deep, and many a fish is in its keep, and so on and on it goes."
    )

    assert looked(run.story())[0].startswith("turn 1 (Manager) shares few words with what was asked: ")


def test_in_a_run_with_a_leader_only_the_first_turns_of_work_are_named() -> None:
    """Whatever they say, as no rule has held there."""
    run = Chat()
    for number in range(3):
        run.says(
            "Leader", f"The plan is to look at page {number}, and then to count what is there, one by one."
        )
        run.says("Leader", "Next speaker Surfer")
        run.says(
            "Surfer", f"I assume that page {number} has simulated data, and I count {number} of them there."
        )

    assert [line.partition(":")[0] for line in looked(run.story())] == [
        "turn 3 (Surfer) and turn 6 (Surfer) are the first turns of work"
    ]


def test_a_run_of_one_agent_has_no_such_lines() -> None:
    """Nor has one in steps that only some turns are in."""
    agent = Agent()
    agent.turn(
        [USER], "Let's assume a sample dataset of penguins, which gives us 12 of them, and stop there."
    )
    agent.turn(
        [USER], "I assume a sample dataset of penguins again, and stop there.", within=agent.step("plan")
    )

    assert looked(agent.story()) == []


def test_each_agent_has_a_conversation_of_its_own() -> None:
    """Nobody edited a prompt, and each goes on from its own turns; an agent's own prompt may be edited."""
    run = Chat()
    for number in range(3):
        run.says("Planner", f"Plan number {number}.", prompt="Plan." if number < 2 else "Plan well.")
        run.says("Surfer", f"Page number {number}.")
    turns = [section.turn for section in run.story().sections if section.turn]

    assert [turn.agent for turn in turns] == 3 * ["Planner", "Surfer"]
    assert [turn.continues for turn in turns] == [0, 1, 1, 2, 3, 4]
    assert [[change.summary for change in turn.changes] for turn in turns] == [
        [], [], [], [], ["the system prompt was edited"], []
    ]  # fmt: skip


def test_steps_that_only_count_turns_are_no_agents() -> None:
    """The conversation goes on from one to the next."""
    run = Chat()
    for number in range(3):
        run.says(f"round {number}", f"Answer number {number}.", prompt="Be kind.")
    turns = [section.turn for section in run.story().sections if section.turn]

    assert [turn.continues for turn in turns] == [0, 1, 2]
    assert [len(turn.messages) for turn in turns] == [1, 0, 0]


def test_where_the_work_is_handed_on_the_last_turn_is_no_early_one() -> None:
    """It is what the run came to; where the first agent gets the work back, an early turn is named."""
    handed_on = Chat()
    handed_on.says(
        "Triage",
        "How many penguins of the Antarctic island have such a beak, longer than that? The counter knows.",
        prompt="Triage.",
    )
    handed_on.says("Counter", "There are twelve penguins of the island whose beak is longer than 42 mm.")
    handed_on.end()
    back = Chat()
    back.says(
        "Triage",
        "How many penguins of the Antarctic island have such a beak, longer than that? The counter knows.",
        prompt="Triage.",
    )
    back.says("Counter", "There are twelve penguins of the island whose beak is longer than 42 mm.")
    back.says(
        "Triage", "Then I tell the user that there are twelve penguins with such a beak.", prompt="Triage."
    )
    back.end()

    assert looked(handed_on.story()) == []
    assert looked(back.story())[0].startswith("turn 2 (Counter) and turn 3")


def test_an_agent_that_is_called_as_a_tool_does_not_talk_to_its_caller() -> None:
    """The turns of the caller are no early turns of work, and the first line is the call that failed."""
    run = Chat()
    run.says("Clerk", "I ask the courier where the parcel is before I tell you anything.")
    call = run.begin_tool("ask_courier", {"question": "where is it?"})
    courier = run.step("Courier", within=call)
    run.turn(
        [TASK], "The parcel is in Bonn, and it comes on Friday.", within=courier, systemPrompt="Courier."
    )
    run.tool("refund", {"parcel": 7}, "Error: parcel 7 was never paid")
    run.says("Clerk", "Parcel 7 is in Bonn, has 4 kg, and comes on Friday. I cannot pay you back.")
    run.end()

    story = run.story()

    assert looked(story) == []
    assert moments(story.whys)[0].kind == "failed"


def test_the_first_screen_has_at_most_five_moments() -> None:
    """The first lines of the story; each step is in one of them."""
    explanation = why(chat().story())

    assert explanation.status == "answered: 1 call said that it failed, not recovered"
    assert explanation.headline.startswith(
        "answered: 1 call said that it failed, not recovered; turn 2 (Coder) led to"
    )
    assert explanation.asked == TASK["content"]
    assert [moment.kind for moment in explanation.moments] == ["look", "look"]
    assert explanation.moments[0].steps == [6, 7]
    assert explanation.counts == {
        "raised": 0, "saidFailed": 1, "recovered": 0, "turns": 4, "toolCalls": 1, "agents": 4
    }  # fmt: skip


def test_a_run_without_anything_to_see_has_no_moments() -> None:
    """Its headline is its outcome."""
    agent = Agent()
    agent.turn([USER], "Refunded.")
    explanation = why(agent.story())

    assert (explanation.moments, explanation.headline) == ([], "answered: no failures")
    assert moments([]) == []
