"""Local copies of task states, deliveries and heartbeats, and look-ups in them."""
