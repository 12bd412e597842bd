"""Traced tools that frameworks register, some of which find them by their name."""

from __future__ import annotations

from typing import Any

from whyops_trace import traced_tool

#: Names that only this module gives its types, which the annotations are to be resolved by.
City = str
Days = int


@traced_tool
def weather(city: City, days: Days = 1) -> str:
    """
    Tell the weather.

    Args:
        city: Name of the city.
        days: Number of days.
    """
    return f"{city} {days}"


@traced_tool(name="weather")
async def aweather(city: City, days: Days = 1) -> str:
    """
    Tell the weather, later.

    Args:
        city: Name of the city.
        days: Number of days.
    """
    return f"{city} {days}"


@traced_tool(name="weather", capture_input=["city", "days"])
def weather_for(request: Any, city: City, days: Days = 1) -> str:
    """Tell the weather to whoever sent a request."""
    return f"{city} {days}"


@traced_tool(name="weather", capture_input=["city", "days"])
async def aweather_for(request: Any, city: City, days: Days = 1) -> str:
    """Tell it later."""
    return f"{city} {days}"


@traced_tool(name="weather")
def weather_of_builtins(city: str, days: int = 1) -> str:
    """Tell the weather to those who know no names of this module."""
    return f"{city} {days}"


@traced_tool(name="weather")
async def aweather_of_builtins(city: str, days: int = 1) -> str:
    """Tell it later."""
    return f"{city} {days}"
