"""The HTTP edge: server limits, request bodies, error responses, server-sent events, health."""
