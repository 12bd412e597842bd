"""
Replay of a recorded trace: decorated functions and traced clients answer as they did when it was recorded.

``recording`` reads the calls of a trace, ``matching`` tells which of them a call is, ``session`` answers it.
"""
