"""What receivers get as the body: the profile's own, or what an integration's template makes of the event."""
