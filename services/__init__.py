"""The processes of tenterhook, a folder each, and what every process needs (runtime, vault)."""
