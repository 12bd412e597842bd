"""The rules of :mod:`whyops_trace.analysis`, one module for each thing they look at."""
