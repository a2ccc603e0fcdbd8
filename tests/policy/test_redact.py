"""Texts without personal data, however long; what is kept of an endpoint's values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.redact import (
    ALL,
    MAX_TEXT,
    Redaction,
    explain_unknown_fields,
    is_personal,
    redact_text,
    shorten,
)
from hyperion.schema.model import Signature, TensorSpec

SECRETS = (
    "jane.doe@example.com",
    "4111 1111 1111 1111",
    "+49 171 1234567",
    "DE89 3704 0044 0532 0130 00",
    "536-90-0399",
)
SIGNATURE = Signature((TensorSpec("age", "FP32", (-1,)),), (TensorSpec("risk", "FP32", (-1,)),))


def test_each_kind_has_its_mark() -> None:
    assert redact_text("; ".join(SECRETS)) == "[email]; [card]; [phone]; [iban]; [national-id]"


@pytest.mark.parametrize("text", ["", "no data here", "12345", "a [email] that is one already"])
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert redact_text(text) == text


@given(
    st.lists(st.sampled_from(SECRETS), max_size=4), st.lists(st.text("abc ,;:'\"=", max_size=9), min_size=5, max_size=5)
)
def test_no_secret_stays_in_a_text(secrets: list[str], between: list[str]) -> None:
    text = between[0] + "".join(f" {secret}, {gap}" for secret, gap in zip(secrets, between[1:], strict=False))
    redacted = redact_text(text)
    assert not any(secret in redacted for secret in SECRETS)
    assert redact_text(redacted) == redacted


@given(st.text(max_size=200))
def test_only_what_is_asked_for_is_looked_for(text: str) -> None:
    assert redact_text(text, ()) == text
    assert "[card]" in text or "[card]" not in redact_text(text, ["email"])


@given(st.integers(0, 1_000), st.sampled_from(SECRETS))
def test_no_half_of_a_secret_stays_where_a_text_is_cut(offset: int, secret: str) -> None:
    text = "x " * ((MAX_TEXT - 100 + offset) // 2) + secret + " y" * 4_000
    redacted = redact_text(text)
    assert redacted.endswith("(cut)")
    assert len(redacted) < MAX_TEXT + 100
    assert secret[:9] not in redacted


def test_a_short_form_is_made_of_the_redacted_text() -> None:
    assert shorten("from jane.doe@example.com", 14) == "from [email]"


@pytest.mark.parametrize(
    ("identifier", "personal"),
    [
        ("7f3a-42", False),
        ("550e8400-e29b-41d4-a716-446655440000", False),
        ("req-4111111111111111", False),
        ("4111111111111111", True),
        ("20261121-000123", False),
        ("jane@example.com", True),
        ("jane%40example.com", True),
        ("+491711234567", True),
        ("DE89370400440532013000", True),
        ("DE88370400440532013000", False),
        ("536-90-0399", True),
    ],
)
def test_ids_that_are_somebodys(identifier: str, personal: bool) -> None:
    assert is_personal(identifier) is personal


def test_an_endpoint_names_detectors_and_fields() -> None:
    redaction = Redaction(["phone", "input:ssn", "email", "output:a:b"])
    assert redaction.detectors == ("email", "phone")
    assert redaction.inputs == {"ssn"}
    assert redaction.outputs == {"a:b"}
    assert redaction.fields
    assert redaction.value("jane@example.com 4111111111111111") == "[email] 4111111111111111"


def test_without_any_rule_values_stay_and_messages_are_looked_at() -> None:
    redaction = Redaction()
    assert not redaction.fields
    assert redaction.detectors == ()
    assert redaction.value("jane@example.com") == "jane@example.com"
    assert redaction.failure("ValueError: no: 'jane@example.com' (m.py:3)") == "ValueError: no: '[email]' (m.py:3)"
    assert redaction.refusal("malformed", 'input "jane@example.com": unknown') == 'input "[email]": unknown'


def test_where_fields_are_named_no_message_is_kept() -> None:
    redaction = Redaction(["output:y"])
    assert redaction.failure("KeyError: 'secret'") == (
        "KeyError: its message is withheld, as the endpoint redacts fields"
    )
    assert "secret" not in redaction.failure("KeyError: 'secret' (/a (b)/model.py:4)")
    assert redaction.failure("secret, and nothing else").startswith("an error: its message")
    assert redaction.failure("KeyError: 'secret.py:1' (/m/model.py:4); the sandbox") == (
        "KeyError (/m/model.py:4): its message is withheld, as the endpoint redacts fields"
    )
    assert "secret" not in redaction.refusal("malformed", "secret")


@pytest.mark.parametrize(
    ("redact", "why"),
    [
        ([*ALL, "input:age", "output:risk"], ""),
        (["input:agee"], 'log.redact: the model has no input "agee"; its inputs are age'),
        (["output:age"], 'log.redact: the model has no output "age"; its outputs are risk'),
    ],
)
def test_fields_that_the_model_does_not_have_are_named(redact: list[str], why: str) -> None:
    assert explain_unknown_fields(redact, SIGNATURE) == why
