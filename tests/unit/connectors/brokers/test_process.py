"""Ports for brokers."""

import socket

import pytest

from connectors.brokers import process
from connectors.brokers.process import free_port
from signalbox.errors import Conflict


def test_a_free_port_can_be_listened_on() -> None:
    """The port is free, and lies where the system hands out none to clients that dial."""
    port = free_port()
    assert 20_000 <= port < 32_768
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_taken_port_is_not_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """When every port of the range is taken, that is said instead of handing one out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(process, "_PORTS", range(port, port + 1))
        with pytest.raises(Conflict, match="no free port"):
            free_port()
