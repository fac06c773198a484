"""Where actions may connect to: the public internet, unless the settings allow private addresses (an SSRF guard).

Who submits a task chooses its URL, and this node may reach what that person may not: the cloud's metadata service, the
broker, a neighbour without a password. So the guard stands where connections are made, not where URLs are read: a name
is resolved once, all its addresses are checked, and the connection goes to a checked address. A second answer of the
DNS, another spelling of an address or a redirect cannot get past it. Proxies of the environment are not used: behind
one, the proxy would resolve the name.
"""

import asyncio
import ipaddress
import logging
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeAlias

from signalbox.actions.retry import ActionError

if TYPE_CHECKING:
    import httpx2

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]

#: Kinds of addresses that `actions.http.allow_private` opens. The others serve nobody: link-local addresses hold the
#: metadata services, which hand out the machine's credentials.
_PRIVATE = frozenset({"loopback", "private"})
# From the registries of special-purpose addresses (IANA, RFC 6890), spelled out because Python's `is_global` and its
# kin differ between versions.
_KINDS_V4: tuple[tuple[str, str], ...] = (
    ("0.0.0.0/8", "unspecified"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "private"),  # shared by a carrier's customers (CGNAT), and where some clouds keep metadata
    ("127.0.0.0/8", "loopback"),
    ("168.63.129.16/32", "link-local"),  # Azure's metadata, although the address looks public
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", "reserved"),
    ("192.88.99.0/24", "reserved"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "private"),
    ("198.51.100.0/24", "reserved"),
    ("203.0.113.0/24", "reserved"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
)
_KINDS_V6: tuple[tuple[str, str], ...] = (
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("fd00:ec2::254/128", "link-local"),  # AWS's metadata, within the private range
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
    # Teredo, in 2001::/23, and 6to4, which is 2002::/16, are tunnels to an address written inside, and out of use.
    ("2001::/23", "reserved"),
    ("2001:db8::/32", "reserved"),
    ("2002::/16", "reserved"),
    ("3fff::/20", "reserved"),
)
_NETWORKS = tuple((ipaddress.ip_network(text), kind) for text, kind in _KINDS_V4 + _KINDS_V6)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
#: Prefixes before an IPv4 address, which is what is meant: mapped ones (RFC 4291), and NAT64 (RFC 6052), by which
#: networks that have IPv6 alone reach all of IPv4.
_AROUND_V4 = (ipaddress.IPv6Network("::ffff:0:0/96"), ipaddress.IPv6Network("64:ff9b::/96"))
#: After IDNA. An escape or a zone (`%`) has no business in a name.
_HOST = re.compile(r"[a-z0-9_.-]{1,253}|[0-9a-f:.]{2,45}")
#: Of its own, so that a resolver that does not answer holds up neither blocking actions nor itself by them.
_RESOLVER_THREADS = 16
_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})

log = logging.getLogger(__name__)


def checked_url(url: str, *, base: "httpx2.URL | None" = None) -> "httpx2.URL":
    """A URL in its one spelling, if it has the form of those that may be called; it may be relative to `base`.

    Raises:
        ValueError: it has not; the message does not repeat it, for it may hold secrets.
    """
    from httpx2 import URL, InvalidURL  # noqa: PLC0415 - its import takes 200 ms, which only who calls somebody spends

    try:
        parsed = base.join(url) if base else URL(url)
    except InvalidURL:
        msg = "the URL is malformed"
        raise ValueError(msg) from None
    host = parsed.raw_host.decode("ascii").lower()
    if parsed.scheme not in ("http", "https"):
        msg = "the URL does not begin with http:// or https://"
    elif parsed.userinfo:
        msg = "the URL holds a user or a password, which belong into a header"
    elif not _HOST.fullmatch(host) or parsed.port == 0 or (parsed.port or 1) > 65_535:
        msg = "the URL has no valid host or port"
    else:
        return parsed
    raise ValueError(msg)


def origin(url: "httpx2.URL") -> str:
    """`https://api.example:8443`: all of a URL that is fit for logs and messages, as paths and queries hold secrets."""
    return f"{url.scheme}://{authority(url)}"


def authority(url: "httpx2.URL") -> str:
    """`api.example:443`: the host, without the dot of the root, and the port."""
    host = url.raw_host.decode("ascii").lower().rstrip(".")
    port = url.port or (443 if url.scheme == "https" else 80)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def kind_of(address: Address) -> str:
    """`public`, or what else an address is: loopback, private, link-local, multicast, reserved or unspecified."""
    if isinstance(address, ipaddress.IPv6Address) and any(address in network for network in _AROUND_V4):
        address = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    for network, kind in _NETWORKS:
        if address.version == network.version and address in network:
            return kind
    return "public" if address.version == 4 or address in _GLOBAL_V6 else "reserved"


class Guard:
    """Turns a name into addresses that may be connected to. Used in one event loop."""

    def __init__(self, *, allow_private: bool, resolve: Resolve | None = None) -> None:
        """`resolve` gives the addresses of a host and port; by default the machine's resolver does."""
        self._open = _PRIVATE if allow_private else frozenset()
        self._resolve = resolve or self._ask_the_machine
        self._threads = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="resolver")

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host, each checked, in the order in which they are worth trying.

        Raises:
            ActionError: `egress_refused`, for one of the addresses is not allowed; or `unknown_host`.
            ConnectionError: the resolver does not know at the moment.
        """
        found = list(dict.fromkeys(await self._resolve(host, port)))
        for address in found:
            kind = kind_of(ipaddress.ip_address(address))
            if kind != "public" and kind not in self._open:
                # Which address it is, inside, is nothing to tell the one who asks.
                log.info("refused to connect to %s: %s is %s", host, address, kind)
                remedy = "; actions.http.allow_private would allow it" if kind in _PRIVATE else ""
                msg = f"{host} has an address that is {kind}{remedy}"
                raise ActionError(msg, type="egress_refused")
        return found

    def close(self) -> None:
        """Let go of the threads; one that waits for the resolver ends when that answers."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _ask_the_machine(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(
                self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            )
        except socket.gaierror as error:
            if error.errno in _NO_SUCH_NAME:
                msg = f"there is no host {host}"
                raise ActionError(msg, type="unknown_host") from None
            msg = f"the address of {host} cannot be found at the moment"
            raise ConnectionError(msg) from error
        except UnicodeError:  # a label that is empty or too long
            msg = f"{host} is no name of a host"
            raise ActionError(msg, type="unknown_host") from None
        return [str(place[0]) for *_, place in found]
