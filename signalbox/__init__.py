"""Autonomous, durable, self-scaling agents on Kafka: what is decided, free of the engine and of the broker."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("signalbox")
except PackageNotFoundError:  # a bare clone that was never installed
    __version__ = "0.0.0"
