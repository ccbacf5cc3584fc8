"""Calls of model servers: consuming work, limits, attempts, streams, outcomes."""
