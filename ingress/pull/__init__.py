"""Queues whose tasks are taken over HTTP by pull workers."""
