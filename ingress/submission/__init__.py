"""Accept tasks: admission, idempotency, writing to Kafka, cancels."""
