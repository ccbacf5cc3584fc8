"""Pure state machines of tasks and batches, and their state records."""
