"""Secrets: sealing and opening them, and the references to them in URLs and headers."""
