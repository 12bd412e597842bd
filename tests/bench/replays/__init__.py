"""Replays beside those of other tools, forty programs each in a process of its own: ``nox -s replay_table``."""
