"""The node's HTTP server: health, metrics and the read-only API."""
