"""Requests that wait for their task: blocking calls, streams, long polls."""
