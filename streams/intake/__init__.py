"""Intake of task records: decoding, trust, quotas, reply topics, deduplication."""
