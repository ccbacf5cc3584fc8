"""Local copies of task states, deliveries and heartbeats, and lookups in them."""
