"""HTTP in: an accepted event is on the log before its sender hears so."""
