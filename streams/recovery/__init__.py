"""What is read again after a start or a rebalance."""
