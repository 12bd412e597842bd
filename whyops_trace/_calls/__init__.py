"""
One run of a traced function, from its request to its response.

A call site knows the function, three kinds of it make events, and drivers follow what goes on after the call.
"""
