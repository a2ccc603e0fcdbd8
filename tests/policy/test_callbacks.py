"""Callbacks go to public addresses over TLS unless somebody allowed more, and are signed as Standard Webhooks says."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.callbacks import FIRST_WAIT_S, LONGEST_WAIT_S, PREFIX, derive_secret, refusal, sign, wait_s

PRIVATE = (
    *("127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
    *("224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1"),
    *("::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::", "192.0.2.1"),
)


@pytest.mark.parametrize("address", PRIVATE)
def test_no_private_address_is_called(address: str) -> None:
    assert "no public address" in refusal("https", "x.example", [address], ())
    assert "no public address" in refusal("https", "x.example", ["93.184.216.34", address], ()), (
        "not even as one of two"
    )
    assert "no public address" in refusal("https", "x.example", [address], ("203.0.113.0/24", "other.example"))


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822"])
def test_a_public_address_is_called_over_tls_only(address: str) -> None:
    assert refusal("https", "x.example", [address], ()) == ""
    assert "without TLS" in refusal("http", "x.example", [address], ())


def test_what_is_allowed_may_be_private_and_without_tls() -> None:
    assert refusal("http", "hooks", ["10.0.0.7"], ("HOOKS",)) == ""
    assert refusal("http", "hooks", ["10.0.0.7"], ("10.0.0.0/8",)) == ""
    assert refusal("http", "hooks", ["10.0.0.7", "10.9.0.7"], ("10.0.0.7", "10.9.0.7")) == ""
    assert "10.9.0.7" in refusal("http", "hooks", ["10.0.0.7", "10.9.0.7"], ("10.0.0.7",))
    assert refusal("http", "hooks", ["::1"], ("::1/128", "not a network")) == ""
    assert "no address" in refusal("https", "hooks", [], ("hooks",))


@given(st.integers(1, 500), st.floats(0, 1, exclude_max=True))
def test_the_wait_is_within_its_bounds(attempt: int, random: float) -> None:
    assert FIRST_WAIT_S / 2 <= wait_s(attempt, random) <= LONGEST_WAIT_S


@given(st.text(), st.text(), st.integers(0, 1 << 40), st.binary())
def test_a_receiver_that_follows_the_specification_can_verify(tenant: str, message: str, at: int, body: bytes) -> None:
    tenant, message = tenant.encode("utf-8", "replace").decode(), message.encode("utf-8", "replace").decode()
    secret = derive_secret(b"master", tenant)
    assert secret.startswith(PREFIX)
    key = base64.b64decode(secret[len(PREFIX) :])
    assert len(key) == 32
    expected = hmac.new(key, f"{message}.{at}.".encode() + body, hashlib.sha256).digest()
    assert sign(secret, message, at, body) == "v1," + base64.b64encode(expected).decode()


def test_each_tenant_has_its_own_secret() -> None:
    assert len({derive_secret(master, tenant) for master in (b"a", b"b") for tenant in ("x", "y")}) == 4
