"""Brokers that a node runs itself, for development, tests and machines without a Kafka of their own."""
