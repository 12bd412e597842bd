"""
What models are asked and what they answer, in every dialect, as plain data.

Answers, the pieces of streams put together, and the link from a turn to the tools it asked for.
"""
