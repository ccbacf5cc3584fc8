"""Task records on their way in: decoding, trust, quotas, reply topics, duplicates."""
