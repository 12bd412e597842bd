"""
Records on their way from the journal to their destinations.

A worker carries them while the program runs. A command drains the records that dead processes left.
"""
