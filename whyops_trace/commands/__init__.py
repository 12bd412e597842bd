"""The commands of ``whyops-trace``, each in a module of its own."""
