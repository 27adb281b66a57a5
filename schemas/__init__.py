"""What is on the wire: the Avro schemas, the event-type catalogue, the profiles and their limits."""
