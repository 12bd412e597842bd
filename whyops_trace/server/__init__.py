"""What ``whyops-trace serve`` runs: a collector that answers as a WhyOps server does, and pages that show traces."""
