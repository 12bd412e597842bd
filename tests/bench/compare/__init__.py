"""whyops-trace beside other tools that trace, each in a process of its own: ``nox -s compare``."""
