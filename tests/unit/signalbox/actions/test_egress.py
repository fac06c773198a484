"""Where actions may connect to. Nothing here connects to anything."""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.actions import ActionError
from signalbox.actions.egress import Guard, authority, checked_url, kind_of, origin

PUBLIC = ("8.8.8.8", "1.1.1.1", "100.63.255.255", "172.32.0.1", "192.167.0.1", "2606:4700:4700::1111", "2a00:1450::1")


def resolving(*addresses: str) -> Any:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


def allowed(host: str, *addresses: str, allow_private: bool = False) -> list[str]:
    """What the guard lets a host be connected to; the machine's resolver answers if no addresses are given."""
    guard = Guard(allow_private=allow_private, resolve=resolving(*addresses) if addresses else None)
    try:
        return asyncio.run(guard.addresses(host, 80))
    finally:
        guard.close()


def refusal(*given: str, **options: Any) -> ActionError:
    with pytest.raises(ActionError) as caught:
        allowed(*given, **options)
    return caught.value


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    """An address of the internet is public, and so are its IPv4 forms within IPv6."""
    assert kind_of(ipaddress.ip_address(address)) == "public"
    assert allowed("api.example", address) == [address]
    if "." in address:
        assert kind_of(ipaddress.ip_address(f"::ffff:{address}")) == "public"
        assert kind_of(ipaddress.ip_address(f"64:ff9b::{address}")) == "public"


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("10.0.0.1", "private"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "private"),
        ("100.100.100.200", "private"),
        ("169.254.169.254", "link-local"),
        ("168.63.129.16", "link-local"),
        ("192.0.0.192", "reserved"),
        ("224.0.0.1", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("fc00::1", "private"),
        ("fd12:3456::1", "private"),
        ("fd00:ec2::254", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("fec0::1", "reserved"),
        ("ff02::1", "multicast"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:a9fe:a9fe", "link-local"),
        ("::127.0.0.1", "reserved"),
        ("64:ff9b::127.0.0.1", "loopback"),
        ("64:ff9b::10.0.0.1", "private"),
        ("64:ff9b:1::10.0.0.1", "reserved"),
        ("2002:7f00:1::", "reserved"),
        ("2002:808:808::", "reserved"),
        ("2001:0:7f00:1::", "reserved"),
        ("2001:db8::1", "reserved"),
        ("4000::1", "reserved"),
    ],
)
def test_other_addresses_are_refused(address: str, kind: str) -> None:
    """An address that is not of the internet has a kind, is refused, and the refusal says which kind it is."""
    assert kind_of(ipaddress.ip_address(address)) == kind
    error = refusal("api.example", address)
    assert (error.type, error.retryable, kind in str(error)) == ("egress_refused", False, True)


@given(st.ip_addresses())
def test_what_python_knows_to_be_special_is_never_public(address: Any) -> None:
    """The tables here hold at least what Python's own do, except for the prefixes around an IPv4 address."""
    around = address.version == 6 and any(
        address in ipaddress.ip_network(prefix) for prefix in ("::ffff:0:0/96", "64:ff9b::/96")
    )
    special = (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
    )
    if special and not around:
        assert kind_of(address) != "public"


@given(st.ip_addresses(v=4))
def test_an_address_within_another_counts(address: ipaddress.IPv4Address) -> None:
    """IPv4 that is written as IPv6, or reached through NAT64, is of the kind that it is by itself."""
    assert kind_of(ipaddress.IPv6Address(f"::ffff:{address}")) == kind_of(address)
    assert kind_of(ipaddress.IPv6Address(f"64:ff9b::{address}")) == kind_of(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://0177.1/",
        "http://00000177.00.0x0.1/",
        "http://127。0。0。1/",
        "http://LOCALHOST/",
        "http://localhost/",
        "HTTPS://LocalHost/",
        "http://[::1]/",
        "http://[0:0:0:0:0:0:0:1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::FFFF:7F00:1]/",
        "http://0/",
        "http://169.254.169.254/latest/meta-data/",
        "http://0xa9fea9fe/",
        "http://[fe80::1]/",
        "http://10.1/",
    ],
)
def test_no_spelling_of_an_address_gets_past(url: str) -> None:
    """However an inner address is written, it is what the resolver makes of it that is checked."""
    assert refusal(checked_url(url).raw_host.decode()).type == "egress_refused"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://api.example/", "http://"),
        ("file:///etc/passwd", "http://"),
        ("gopher://127.0.0.1:6379/_FLUSHALL", "http://"),
        ("//api.example/", "http://"),
        ("api.example", "http://"),
        ("", "http://"),
        ("http://user:secret@api.example/", "a user"),
        ("http://api.example@127.0.0.1/", "a user"),
        ("http://api.example\\@127.0.0.1/", "a user"),
        ("http:///path", "host"),
        ("http://api.example:0/", "port"),
        ("http://api.example:65536/", "port"),
        ("http://api.example:99999999999999999999/", "port"),
        ("http://[fe80::1%25eth0]/", "host"),
        ("http://[fe80::1%eth0]/", "host"),
        ("http://%6cocalhost/", "host"),
        ("http://a b/", "host"),
        ("http://" + "a" * 254 + "/", "host"),
        ("http://api.example\r\nX: y/", "malformed"),
        ("http://127.0.0.1\t/", "malformed"),
        ("http://①②⑦.⓪.⓪.①/", "malformed"),
        ("http://0177.0.0.1/", "malformed"),
        ("http://[::1/", "malformed"),
        ("http://::1/", "malformed"),
    ],
)
def test_urls_of_another_form_are_refused(url: str, reason: str) -> None:
    """What is no http or https URL of a plain host is refused, in words that do not repeat it."""
    with pytest.raises(ValueError, match=reason) as caught:
        checked_url(url)
    assert "secret" not in str(caught.value)


@given(st.text() | st.text().map(lambda text: f"http://{text}"))
def test_any_text_is_a_url_or_refused(text: str) -> None:
    """No text makes the check fail in another way than by refusing it."""
    try:
        url = checked_url(text)
    except ValueError:
        return
    assert url.scheme in ("http", "https")
    assert authority(url)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://API.Example/secret?key=1#x", "https://api.example:443"),
        ("http://api.example.:8080", "http://api.example:8080"),
        ("http://bücher.example/", "http://xn--bcher-kva.example:80"),
        ("http://xn--bcher-kva.example/", "http://xn--bcher-kva.example:80"),
        ("http://[2606:4700::1]/", "http://[2606:4700::1]:80"),
    ],
)
def test_an_origin_is_named_alike(url: str, name: str) -> None:
    """Spellings of the same host and port have the same name, which holds neither path nor query."""
    assert origin(checked_url(url)) == name


def test_one_inner_address_among_others_is_enough() -> None:
    """A name whose addresses are public but for one is refused: which one a client takes is anybody's guess."""
    assert refusal("api.example", "8.8.8.8", "10.0.0.1").type == "egress_refused"


def test_a_refusal_does_not_tell_the_inner_address(caplog: pytest.LogCaptureFixture) -> None:
    """Who asks learns of a name's kind of address, and the log has the address itself."""
    with caplog.at_level(logging.INFO):
        error = refusal("db.internal", "10.11.12.13")
    assert "10.11.12.13" not in str(error)
    assert "10.11.12.13" in caplog.text


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "::1", "fd12::1", "::ffff:127.0.0.1", "8.8.8.8"])
def test_private_addresses_can_be_allowed(address: str) -> None:
    """With `allow_private`, loopback and private addresses are as good as public ones."""
    assert allowed("api.example", address, allow_private=True) == [address]


@pytest.mark.parametrize("address", ["169.254.169.254", "fd00:ec2::254", "168.63.129.16", "224.0.0.1", "0.0.0.0"])
def test_metadata_stays_out_of_reach(address: str) -> None:
    """What hands out the machine's credentials, and what nobody calls, is refused even with `allow_private`."""
    error = refusal("api.example", address, allow_private=True)
    assert (error.type, "allow_private" in str(error)) == ("egress_refused", False)


def test_a_refusal_says_which_setting_would_allow_it() -> None:
    """Whoever runs the node reads in the message what to change, if it can be changed."""
    assert "actions.http.allow_private" in str(refusal("api.example", "127.0.0.1"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (socket.gaierror(socket.EAI_NONAME, "no"), "unknown_host"),
        (socket.gaierror(socket.EAI_AGAIN, "later"), None),
        (UnicodeError("label too long"), "unknown_host"),
    ],
)
def test_a_name_that_is_not_found(monkeypatch: pytest.MonkeyPatch, error: Exception, expected: str | None) -> None:
    """A name that does not exist is a definite answer; a resolver that fails is worth another attempt."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises((ActionError, ConnectionError)) as caught:
        allowed("api.example")
    assert getattr(caught.value, "type", None) == expected


def test_a_label_that_is_too_long_is_no_host() -> None:
    """A name that the resolver cannot even encode is unknown."""
    assert refusal(f"{'a' * 64}.example").type == "unknown_host"
