"""
The journal: lines on disk, in the files called segments, until every destination has them.

The host program's threads append records, and workers read them. A survey looks at all of it from outside.
"""
