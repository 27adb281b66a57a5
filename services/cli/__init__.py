"""The `tenterhook` command."""
