"""Measurements, as ratios within one run and with their spread. `make bench ARGS=agent_cost`; see README.md here."""
