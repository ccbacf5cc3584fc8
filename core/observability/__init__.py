"""Logs, traces, metrics and the health server."""
