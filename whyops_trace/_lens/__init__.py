"""
The lens: a trace that another product stores, fetched by its address and read as spans.

Each module of a product finds its traces in addresses, and is a pure generator that yields requests, is sent their
answers and returns the spans. ``fetching`` alone does I/O.
"""
