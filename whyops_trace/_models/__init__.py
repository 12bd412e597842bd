"""
Requests to models and their answers, in every dialect, as plain data.

Answers, the assembly of streams, and the link from a turn to the tools it requested.
"""
