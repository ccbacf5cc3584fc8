"""Kafka clients: a durable producer, readers with manual assignment, and topic administration."""
