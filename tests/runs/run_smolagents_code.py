"""smolagents: an agent whose turns are programs, which call tools and the agent that it manages."""

from __future__ import annotations

from provider import Provider
from replies import Reply
from runs import shop
from runs.told import Ran, Told
from runs.with_smolagents import prepare, told_of
from smolagents import CodeAgent, OpenAIServerModel, tool

PROGRAMS = [
    "print(find(parcel=7))\nprint(weigh(parcel=7))",
    'refund(parcel=7, reason="late")',
    f'print(courier(task="{shop.ASK}"))',
    'print(hours(day="Friday"))',
    f'final_answer("{shop.TIMES}")',
    f'final_answer("{shop.ANSWER}")',
]


def run(provider: Provider) -> Told:
    model = OpenAIServerModel(shop.MODEL, api_base=provider.openai_url, api_key=provider.openai_key)
    courier = CodeAgent(
        [tool(shop.hours)], model, name="courier", description="Knows the roads.", verbosity_level=0
    )
    tools = [tool(each) for each in (shop.find, shop.weigh, shop.refund)]
    clerk = CodeAgent(tools, model, name="clerk", managed_agents=[courier], verbosity_level=0)
    clerk.run(shop.QUESTION)
    told = told_of(clerk, courier)
    told.ran.extend(_RAN)  # the framework's memory has the programs alone
    return told


#: What the programs call, and what comes of it.
_RAN = [
    Ran("clerk", "", "find", {"parcel": 7}, {"parcel": 7, "city": "Bonn"}),
    Ran("clerk", "", "weigh", {"parcel": 7}, "parcel 7 has 4 kg"),
    Ran("clerk", "", "refund", {"parcel": 7, "reason": "late"}, failed=True),
    Ran("courier", "", "hours", {"day": "Friday"}, "Friday: 10 to 12"),
]


if __name__ == "__main__":
    replies = [
        Reply(f"Thought: I go on.\n<code>\n{code}\n</code>", usage=reply.usage)
        for code, reply in zip(PROGRAMS, shop.script(), strict=True)
    ]
    shop.play(
        run, replies, packages=("smolagents", "openinference-instrumentation-smolagents"), prepare=prepare
    )
