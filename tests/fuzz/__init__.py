"""Fuzzers: `python -m tests.fuzz` looks for inputs, `test_corpora.py` replays those that are kept."""
