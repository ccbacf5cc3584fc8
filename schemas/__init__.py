"""The contracts: Avro records, framing, topics, task identity, validation. Pure: no Kafka, no clock, no HTTP."""
