"""The rules of :mod:`whyops_trace.analysis`, one module for each subject."""
