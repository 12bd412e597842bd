"""
A record is numbered, timed and written: the one door to the journal.

What is known of a trace, what becomes of its numbers in a trace that goes on, and the line a record is.
"""
