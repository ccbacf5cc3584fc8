"""Client of an external schema registry."""
