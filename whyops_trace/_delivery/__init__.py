"""
Records on their way from the journal to their destinations.

A worker carries them while the program runs; what dead processes left is drained in the foreground.
"""
