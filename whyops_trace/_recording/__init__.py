"""
The one way into the journal: an event gets its numbers and its time, and becomes a line.

Its modules are the recorder, the state of a trace, the line of a record, and the numbers of a trace that continues.
"""
