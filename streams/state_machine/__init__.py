"""Pure transitions of tasks and batches, and the rows they change."""
