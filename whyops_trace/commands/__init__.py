"""The commands of ``whyops-trace``, one in each module."""
