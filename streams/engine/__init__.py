"""Faust, made safe: a consumer that loses nothing behind Faust's transport interface, and batches for its agents."""
