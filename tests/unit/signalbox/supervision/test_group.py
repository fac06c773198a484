import socket

from signalbox.supervision.generation import free_addresses


def test_free_addresses_are_distinct_and_can_be_listened_on() -> None:
    """Each address is on the loopback, below the range of outgoing connections, and free."""
    addresses = free_addresses(8)
    assert len(set(addresses)) == 8
    for address in addresses:
        host, port = address.split(":")
        assert 20_000 <= int(port) < 32_768
        with socket.create_server((host, int(port))):
            pass


def test_an_occupied_port_is_not_offered() -> None:
    """What somebody listens on is left out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}" not in free_addresses(20)
