"""`headrace replay`: selection, copies, comparison, totals."""
