"""Client of an outside schema registry."""
