"""Faults under load, and what must hold all the same: see docs/consistency.md."""
