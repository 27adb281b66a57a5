"""Fan-out and delivery: from `events` to the signed POST and its result."""
