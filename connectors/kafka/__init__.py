"""Everything that speaks the Kafka protocol: plain clients, and the source and sink of the dataflows."""
