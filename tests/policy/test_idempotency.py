"""Idempotency keys: what draft-07 asks, as a table and as properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.idempotency import ABANDONED, KEPT_S, LEASE_S, Record, decide, is_final, make_lasting, read_key
from hyperion.schema.errors import MalformedRequest
from hyperion.schema.job import StoredAnswer

RUNNING = Record("f", False, "t", lease_until=20.0, expires_at=100.0)
DONE = Record("f", True, "t", lease_until=20.0, expires_at=100.0)


@pytest.mark.parametrize(
    ("record", "fingerprint", "token", "now", "expected"),
    [
        (None, "f", "t", 0.0, "run"),
        (RUNNING, "f", "t", 10.0, "run"),
        (RUNNING, "f", "u", 19.9, "in-progress"),
        (RUNNING, "f", "u", 20.0, "run"),
        (RUNNING, "g", "t", 10.0, "mismatch"),
        (RUNNING, "g", "u", 50.0, "mismatch"),
        (Record("f", False, "t", ABANDONED, 100.0), "g", "u", 10.0, "run"),
        (Record("f", True, "t", ABANDONED, 100.0), "g", "u", 10.0, "mismatch"),
        (DONE, "f", "u", 10.0, "replay"),
        (DONE, "f", "t", 99.9, "replay"),
        (DONE, "f", "u", 100.0, "run"),
        (DONE, "g", "u", 10.0, "mismatch"),
        (DONE, "g", "u", 100.0, "run"),
    ],
)
def test_the_table_of_the_draft(record: Record | None, fingerprint: str, token: str, now: float, expected: str) -> None:
    assert decide(record, fingerprint, token, now) == expected


@given(
    st.builds(Record, st.sampled_from("fg"), st.booleans(), st.sampled_from("tu"), st.floats(0, 50), st.floats(0, 50)),
    st.sampled_from("fg"),
    st.sampled_from("tuv"),
    st.floats(0, 60),
)
def test_what_is_done_never_runs_again_before_it_expires(record: Record, mine: str, token: str, now: float) -> None:
    decision = decide(record, mine, token, now)
    if record.done and now < record.expires_at:
        assert decision in ("replay", "mismatch")
    if decision == "replay":
        assert record.done
        assert record.fingerprint == mine


@pytest.mark.parametrize(
    ("given_key", "key"),
    [(b"abc", "abc"), (b' "a b" ', "a b"), (b'"a\\"b\\\\"', 'a"b\\'), (b'"a";b="c"', "a"), (b"x" * 255, "x" * 255)],
)
def test_a_key_may_have_quotes_or_not(given_key: bytes, key: str) -> None:
    assert read_key(given_key) == key


@pytest.mark.parametrize(
    "given_key", [b"", b'""', b"  ", b"x" * 256, b"\xe9", b"a\x01", b'"', b'"a', b'"a", "b"', b'"a\\b"']
)
def test_what_is_no_key_is_refused(given_key: bytes) -> None:
    with pytest.raises(MalformedRequest, match="1 to 255 printable"):
        read_key(given_key)


@pytest.mark.parametrize("given_key", [b"jane@example.com", b'"jane@example.com"', b"4111 1111 1111 1111"])
def test_a_key_that_is_somebodys_address_or_number_is_kept_as_a_digest(given_key: bytes) -> None:
    key = read_key(given_key)
    assert key.startswith("sha256:")
    assert key == read_key(given_key)
    assert given_key.strip(b'"').decode() not in key


def test_what_a_retry_may_mend_is_no_final_outcome() -> None:
    assert [status for status in range(200, 600) if is_final(status)] == [*range(200, 300), 500]
    assert is_final(0)
    assert LEASE_S < KEPT_S


def test_what_was_true_of_its_time_only_is_not_kept() -> None:
    fields = (
        ("Content-Type", "application/json"),
        ("RateLimit", '"a";r=1'),
        ("retry-after", "3"),
        ("x-request-id", "i"),
    )
    kept = make_lasting(StoredAnswer(429, fields, b"{}", b"end"))
    assert kept.headers == (fields[0], fields[3])
    assert (kept.status, kept.body, kept.trailers) == (429, b"{}", b"end")
