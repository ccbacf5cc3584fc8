"""Dead-letter records, and the queue of them."""
