"""
Sense made of stored records: one typed reader of them, and the calls they tell of.

Nodes of a trace's tree, its summary, excerpts for one line, and prices; what explains a trace stands on these.
"""
