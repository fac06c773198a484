"""Where the core meets the world: brokers, Kafka clients, sources and sinks, behind the ports of the core."""
