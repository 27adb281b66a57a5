"""Everything about the log that no single service owns."""
