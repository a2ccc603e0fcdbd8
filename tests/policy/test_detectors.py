"""What is found in texts, what is left alone, and that looking takes time in proportion to the text."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.check_digits import IBAN_LENGTHS, is_br_cpf, is_card, is_de_tax_id, is_iban, is_luhn
from hyperion.policy.detectors import DETECTORS, LONGEST, find, may_hold

FOUND = {
    "email": [
        "jane@example.com",
        "jane.doe+spam@mail.example.co.uk",
        "o'brien@example.ie",
        "jörg@müller.de",
        "x@xn--bcher-kva.example",
        "x@example.xn--p1ai",
        "jane%40example.com",
        "A_1@EXAMPLE.ORG",
    ],
    "phone": [
        "+491711234567",
        "+49 171 1234567",
        "+1 (415) 555-2671",
        "+1.415.555.2671",
        "+44 20 7946 0958",
        "0049 171 1234567",
        "(415) 555-2671",
        "415-555-2671",
        "415.555.2671",
        "1-415-555-2671",
        "020 7946 0958",
        "07700 900123",
        "07700900123",
        "0171/1234567",
        "01711234567",
        "030 12345678",
        "(030) 1234567",
        "01 23 45 67 89",
        "0612345678",
        "01.23.45.67.89",
        "01\u202f23\u202f45\u202f67\u202f89",
        "+49\u00a0171\u20111234567",
    ],
    "card": [
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "4222222222222",
        "5555555555554444",
        "2223003122003222",
        "378282246310005",
        "3782 822463 10005",
        "30569309025904",
        "3056 930902 5904",
        "6011111111111117",
        "3530111333300000",
        "6200000000000005",
        "6304000000000000",
        "4111\u00a01111\u00a01111\u00a01111",
    ],
    "iban": [
        "DE89370400440532013000",
        "DE89 3704 0044 0532 0130 00",
        "de89 3704 0044 0532 0130 00",
        "GB29 NWBK 6016 1331 9268 19",
        "FR14 2004 1010 0505 0001 3M02 606",
        "NO93 8601 1117 947",
        "MT84MALT011000012345MTLCAST001S",
        "CR05015202001026284066",
    ],
    "national-id": [
        "536-90-0399",
        "AB123456C",
        "AB 12 34 56 C",
        "86095742719",
        "86 095 742 719",
        "255081416802538",
        "2 55 08 14 168 025 38",
        "12345678Z",
        "12345678-Z",
        "X1234567L",
        "X-1234567-L",
        "RSSMRA85T10A562S",
        "rssmra85t10a562s",
        "529.982.247-25",
    ],
}
LEFT_ALONE = [
    "",
    "shape [3, 4, 224, 224] does not fit",
    "1763740000000",  # milliseconds since 1970
    "1763740000000000000",  # nanoseconds
    "2026-11-21T15:59:38.123Z",
    "01-02-2026 10:30:00",
    "21.11.2026",
    "01.23.45.67",
    "01.23.45.67.89.01",
    "0.4111111111111111",
    "-12345.678901234",
    "+1234567.89",
    "3.14159265358979",
    "550e8400-e29b-41d4-a716-446655440000",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "fraud@1.2.0",
    "fraud@champion",
    "user@localhost",
    "192.168.100.200:8080",
    "10.0.0.1",
    "4111111111111112",  # no Luhn
    "41111111111111111",  # Luhn is right, but Visa has no 17 digits
    "1234567812345670",  # Luhn is right, but nobody's
    "DE88370400440532013000",
    "DE8937040044053201300",
    "01715/12345678",
    "DE89 3704 0044, 0532",
    "XX89370400440532013000",
    "DE89-please",
    "666-90-0399",
    "536-00-0399",
    "536-90-0000",
    "BG123456C",
    "AB123456E",
    "86095742718",
    "06095742719",
    "12345678901",
    "11122345678",
    "255081416802539",
    "255131416802538",
    "12345678A",
    "RSSMRA85T10A562T",
    "529.982.247-24",
    "111.111.111-11",
    "00123456789",
    "415-555-26711",
    "030 1234",
    "1e+12345678",
    "/opt/models/fraud/3/model.py:120",
    "[0.1 0.25 0.5 1234567.0]",
    "[4111 1111 1112]",
    "row 12345, column 67890",
    "123456789012345678901234567890",
]
CASES = [(detector, text) for detector, texts in FOUND.items() for text in texts]


@pytest.mark.parametrize(("detector", "text"), CASES)
@pytest.mark.parametrize(
    "around", ["{}", "value '{}' is odd", "x={}, y", "<{}>", "call {}.", "id 12 {} 34", "ä {}: no"]
)
def test_each_is_found_wherever_it_stands(detector: str, text: str, around: str) -> None:
    whole = around.format(text)
    assert may_hold(whole)
    start = around.index("{}")
    stop = start + len(text)
    spans = find(whole, detector)
    # A number behind a phone's may be its extension, and goes with it.
    assert any(found[0] == start and (found[1] == stop or (detector == "phone" and found[1] > stop)) for found in spans)


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert {name: find(text, name) for name in DETECTORS} == {name: [] for name in DETECTORS}


def test_two_in_a_row_are_both_found() -> None:
    assert len(find("4111111111111111 4111 1111 1111 1111 5555555555554444", "card")) == 3
    assert len(find("a@example.com,b@example.com;c@example.com", "email")) == 3


def test_a_candidate_that_is_none_hides_no_other_behind_it() -> None:
    assert find("1234 4111 1111 1111 1111", "card") == [(5, 24)]


def test_what_two_forms_find_together_is_one() -> None:
    assert find("+4930 1234 020 7946 0958", "phone") == [(0, 24)]


def test_an_iban_has_the_length_of_its_country() -> None:
    assert is_iban("GB29NWBK60161331926819")
    assert not is_iban("GB29NWBK6016133192681")
    assert not is_iban("QQ29NWBK60161331926819")


def with_luhn(body: str) -> str:
    return next(body + str(digit) for digit in range(10) if is_luhn(body + str(digit)))


@given(st.from_regex(r"4[0-9]{14}", fullmatch=True).map(with_luhn), st.sampled_from(["", " ", "-"]))
def test_every_card_is_found_in_each_grouping(card: str, separator: str) -> None:
    text = separator.join(card[at : at + 4] for at in range(0, 16, 4))
    assert is_card(card)
    assert find(f"pay with {text} today", "card") == [(9, 9 + len(text))]


@given(st.from_regex(r"4[0-9]{15}", fullmatch=True), st.integers(0, 15), st.integers(1, 9))
def test_a_card_with_one_wrong_digit_is_none(card: str, place: int, shift: int) -> None:
    right = with_luhn(card[:15])
    wrong = right[:place] + str((int(right[place]) + shift) % 10) + right[place + 1 :]
    assert not is_luhn(wrong)


@given(st.sampled_from(sorted(IBAN_LENGTHS)), st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=31, max_size=31))
def test_every_iban_is_found_plain_and_in_groups_of_four(country: str, body: str) -> None:
    body = body[: IBAN_LENGTHS[country] - 4]
    number = int("".join(str(int(c, 36)) for c in body + country + "00"))
    iban = f"{country}{98 - number % 97:02d}{body}"
    assert is_iban(iban)
    grouped = " ".join(iban[at : at + 4] for at in range(0, len(iban), 4))
    for text in (iban, iban.lower(), grouped, iban[:4] + "-" + iban[4:]):
        assert find(f"to {text} please", "iban")[0][0] == 3
        assert find(f"to {text}, please", "iban") == [(3, 3 + len(text))]


@given(st.from_regex(r"[1-9][0-9]{10}", fullmatch=True))
def test_a_tax_id_says_no_more_than_its_check_digit_allows(digits: str) -> None:
    assert sum(is_de_tax_id(digits[:10] + str(last)) for last in range(10)) <= 1


@given(st.from_regex(r"[0-9]{9}", fullmatch=True))
def test_nine_digits_have_one_cpf(digits: str) -> None:
    right = [f"{digits}{check:02d}" for check in range(100) if is_br_cpf(f"{digits}{check:02d}")]
    assert len(right) == (0 if len(set(digits)) == 1 and right == [] else 1)


@given(st.text(max_size=300), st.sampled_from(sorted(DETECTORS)))
def test_what_is_found_is_in_order_apart_and_short(text: str, detector: str) -> None:
    last = 0
    for start, stop in find(text, detector):
        assert last <= start < stop <= len(text)
        assert stop - start <= LONGEST
        last = stop


@pytest.mark.parametrize(
    "unit",
    ["a", "1", "a.", "a@", "@a.", "1 ", "0 ", "+1", "1-", "DE89", "DE89 ", "4111 ", "(0", "a.b@c.d", "0-11 ", "01 23-"],
)
def test_looking_takes_time_in_proportion_to_the_text(unit: str) -> None:
    """Twenty times the text may not take two hundred times as long: what backtracks takes four hundred times."""

    def seconds(size: int) -> float:
        text = (unit * size)[:size]
        best = 10.0
        for _ in range(5):
            started = time.perf_counter()
            for detector in DETECTORS:
                find(text, detector)
            best = min(best, time.perf_counter() - started)
        return best

    assert seconds(20_000) < 200 * max(seconds(1_000), 1e-4)
