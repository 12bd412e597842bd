"""
One run of a traced function, from its request to its response.

A call site holds the function and its options, its three kinds make events, and drivers follow results that still run.
"""
