"""Whom the platform may call by itself, and what a callback looks like and when it is tried again.

A caller who names a URL makes us connect for him, from inside (server-side request forgery): by default only to public
addresses, over TLS, and never by a redirect. The signature is that of Standard Webhooks 1.0. Pure: called by
`control/jobs/callbacks`, which resolves names and connects to the very address that was judged.
"""

import base64
import hashlib
import hmac
import ipaddress
from collections.abc import Sequence
from typing import Final

ATTEMPTS: Final = 8
FIRST_WAIT_S: Final = 5.0
LONGEST_WAIT_S: Final = 3_600.0
LEASE_S: Final = 60.0  # longer than a callback may take: then another control process tries
PREFIX: Final = "whsec_"  # of secrets, as Standard Webhooks writes them

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def refusal(scheme: str, host: str, addresses: Sequence[str], allowed: Sequence[str]) -> str:
    """Why this URL may not be called, "" where it may. `addresses` are all that the name resolves to; `allowed` are
    host names, addresses and networks (CIDR) that may be called wherever they lie, and without TLS.

    >>> refusal("https", "hooks.acme.com", ["93.184.216.34"], ())
    ''
    >>> refusal("https", "hooks.acme.com", ["93.184.216.34", "10.0.0.7"], ())
    'hooks.acme.com is at 10.0.0.7, which is no public address; the setting callback-hosts may allow it'
    >>> refusal("http", "10.0.0.7", ["10.0.0.7"], ("10.0.0.0/24",))
    ''
    """
    if not addresses:
        return f"{host} has no address"
    if host.lower() in {one.lower() for one in allowed}:
        return ""
    networks = [network for one in allowed if (network := _network(one)) is not None]
    judged = [(text, _plain(ipaddress.ip_address(text.partition("%")[0]))) for text in addresses]
    outside = [(text, address) for text, address in judged if not any(address in network for network in networks)]
    for text, address in outside:
        if not address.is_global or address.is_multicast:
            return f"{host} is at {text}, which is no public address; the setting callback-hosts may allow it"
    if outside and scheme != "https":
        return f"{host} is to be called without TLS; use an https:// URL"
    return ""


def wait_s(attempt: int, random: float) -> float:
    """Seconds until the next try after number `attempt` (1 and up) failed, `random` uniform in [0, 1): exponential,
    between a half and all of it, so that receivers get a moment in any case.

    >>> wait_s(1, 0.0), wait_s(2, 1.0), wait_s(99, 1.0)
    (2.5, 20.0, 3600.0)
    """
    whole = min(LONGEST_WAIT_S, FIRST_WAIT_S * 4.0 ** min(attempt - 1, 20))
    return whole * (0.5 + random / 2)


def derive_secret(master: bytes, tenant: str) -> str:
    """The secret with which callbacks of a tenant are signed, as receivers' libraries take it.

    >>> derive_secret(b"master", "acme")[:14]
    'whsec_jF2lXA1X'
    """
    made = hmac.new(master, b"callback secret of " + tenant.encode(), hashlib.sha256).digest()
    return PREFIX + base64.b64encode(made).decode()


def sign(secret: str, message_id: str, timestamp_s: int, body: bytes) -> str:
    """The header `webhook-signature` (Standard Webhooks 1.0, "Signature scheme", HMAC-SHA256). The example is theirs.

    >>> secret, message = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek"
    >>> sign(secret, message, 1614265330, b'{"test": 2432232314}')
    'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='
    """
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = b"%b.%d.%b" % (message_id.encode(), timestamp_s, body)
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None  # a host name


def _plain(address: Address) -> Address:
    """What an IPv6 address that stands for an IPv4 one (mapped, 6to4, NAT64) really reaches."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
