"""
The journal: lines on disk, in the files called segments, until every destination has them.

Records are appended in the host program's threads, and read by workers; a survey looks at it all from outside.
"""
