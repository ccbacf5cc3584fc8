"""Tools that measure Headrace: the upstream simulator, the callback sink, the load generator and the report."""
