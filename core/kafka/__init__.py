"""The Kafka seams: a durable producer, hand-assigned readers and topic administration."""
