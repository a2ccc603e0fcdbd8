r"""What in a text is somebody's e-mail address, phone, payment card, IBAN or national id. Pure, and linear in the text.

Precision goes before recall: a number counts only where its form says so, or its check digit does, so that counters,
timestamps and floats stay readable. Every pattern is bounded in length at each place where it may begin. Called by
`redact`; which forms are found is in docs/redaction.md.
"""

import re
from collections.abc import Callable
from typing import Final

from hyperion.policy.check_digits import (
    IBAN_LENGTHS,
    is_br_cpf,
    is_card,
    is_de_tax_id,
    is_es_dni,
    is_fr_nir,
    is_iban,
    is_it_tax_code,
    is_us_ssn,
)

__all__ = ["DETECTORS", "LONGEST", "find", "may_hold"]

LONGEST: Final = 384  # characters of the longest thing that is found (an e-mail address), and some more
# Gives where the candidate ends that the pattern found, or -1 where it is none after all.
Check = Callable[[str, "re.Match[str]"], int]
Finder = tuple["re.Pattern[str]", Check]

_NOT_DIGIT: Final = re.compile("[^0-9A-Z]")
# What stands between digits where somebody set the text: blanks that do not break, and other hyphens.
_ALIKE: Final = dict.fromkeys((0xA0, 0x2007, 0x2009, 0x202F), " ") | dict.fromkeys(
    (0x2010, 0x2011, 0x2012, 0x2013), "-"
)
_MAY_HOLD: Final = re.compile(r"@|%40|(?:[0-9][^0-9]{0,3}){6}")
_START = r"(?<![\w.])"
_END = r"(?!\w|[.,]?[0-9])"
_EMAIL = re.compile(
    r"\w[\w.+'-]{0,63}+(?:@|%40)(?:[\w-]{1,63}\.){1,8}(?:xn--[A-Za-z0-9-]{2,59}|[^\W\d_]{2,24})(?![\w-])"
)
_INTERNATIONAL = re.compile(r"(?<![\w.+])(?:\+|00)[1-9](?:[ ()/.-]{0,2}[0-9]){6,14}" + _END)
_NORTH_AMERICAN = re.compile(
    r"(?<![\w.+-])(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}(?P<s>[.-]))[2-9][0-9]{2}(?(s)(?P=s)|[ .-])[0-9]{4}"
    + _END
)
_NATIONAL = re.compile(
    r"(?<![\w.+,-])\(?0[1-9][0-9]{0,3}\)?[ /-][0-9]{2,8}(?:(?P<s>[ -])[0-9]{2,8}(?:(?P=s)[0-9]{2,8}){0,3})?" + _END
)
_MOBILE = re.compile(_START + r"(?:07[0-9]{9}|0[67][0-9]{8}|01[567][0-9]{8,9})" + _END)  # GB, FR, DE, as it is typed
_DOTTED = re.compile(_START + r"0[1-9](?:\.[0-9]{2}){4}" + _END)  # FR
_CARDS = (
    r"[0-9]{13,19}",
    r"[0-9]{4}(?P<s>[ -])[0-9]{4}(?P=s)[0-9]{4}(?P=s)[0-9]{4}(?P=s)[0-9]{3}",
    r"[0-9]{4}(?P<s>[ -])[0-9]{4}(?P=s)[0-9]{4}(?P=s)[0-9]{4}",
    r"[0-9]{4}(?P<s>[ -])[0-9]{6}(?P=s)[0-9]{4,5}",
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])([A-Za-z]{2})[0-9]{2}[ -]?[A-Za-z0-9]")
_US_SSN = r"[0-9]{3}-[0-9]{2}-[0-9]{4}"
_GB_NINO = (
    r"(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z](?P<s> ?)[0-9]{2}(?P=s)[0-9]{2}(?P=s)[0-9]{2}"
    r"(?P=s)[A-D]"
)
_DE_TAX_ID = r"[0-9]{2}(?P<s> ?)[0-9]{3}(?P=s)[0-9]{3}(?P=s)[0-9]{3}"
_FR_NIR = r"[12](?P<s> ?)[0-9]{2}(?P=s)[0-9]{2}(?P=s)(?:[0-9]{2}|2[AB])(?P=s)[0-9]{3}(?P=s)[0-9]{3}(?P=s)[0-9]{2}"
_ES_DNI = r"(?:[0-9]{8}|[XYZ]-?[0-9]{7})-?[A-HJ-NP-TV-Z]"
_IT_TAX_CODE = r"(?i:[A-Z]{6}[0-9]{2}[A-EHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z])"
_BR_CPF = r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}"


def may_hold(text: str) -> bool:
    """Whether there is any point in looking: an at sign, or six digits near each other.

    >>> may_hold("shape [3, 4] does not fit"), may_hold("jane@example.com")
    (False, True)
    """
    return _MAY_HOLD.search(text) is not None


def find(text: str, detector: str) -> list[tuple[int, int]]:
    """Where the text has what `detector` looks for: starts and ends, in order, without overlaps.

    >>> find("call +44 20 7946 0958 now", "phone")
    [(5, 21)]
    """
    found: list[tuple[int, int]] = []
    if not text.isascii():
        text = text.translate(_ALIKE)  # one character for one, so places stay
    if detector == "email" and "@" not in text and "%40" not in text:
        return found  # its pattern may begin at each letter, and is the dearest of them
    for pattern, check in DETECTORS[detector]:
        match = pattern.search(text)
        while match is not None:
            start, end = match.start(), check(text, match)
            if end >= 0:
                found.append((start, end))
            match = pattern.search(text, end if end >= 0 else start + 1)
    found.sort()
    apart: list[tuple[int, int]] = []
    for start, stop in found:
        if not apart or start >= apart[-1][1]:
            apart.append((start, stop))
        elif stop > apart[-1][1]:  # two forms of one number: what either of them takes in goes
            apart[-1] = (apart[-1][0], stop)
    return apart


def _plain(text: str) -> str:
    return _NOT_DIGIT.sub("", text)


def _whole(_text: str, match: "re.Match[str]") -> int:
    return match.end()


def _if(is_right: Callable[[str], bool]) -> Check:
    """A candidate is right as a whole, without its separators."""
    return lambda _text, match: match.end() if is_right(_plain(match.group().upper())) else -1


def _check_international(_text: str, match: "re.Match[str]") -> int:
    """E.164: up to 15 digits. What is written with 00 has a country code and a whole number behind it; one point alone
    is that of a decimal number."""
    number = match.group()
    if number[0] == "0" and len(_plain(number)) < 12:
        return -1
    return -1 if number.count(".") == 1 else match.end()


def _check_national(_text: str, match: "re.Match[str]") -> int:
    """9 to 12 digits; groups that would make more of them belong to something else."""
    number, start = match.group(), match.start()
    while len(_plain(number)) > 12:
        number = number[: max(number.rfind(" "), number.rfind("-"), 0)]
    return start + len(number) if len(_plain(number)) >= 9 else -1


def _check_iban(text: str, match: "re.Match[str]") -> int:
    """Reads on to the length of the country's IBANs, over single blanks and hyphens."""
    length = IBAN_LENGTHS.get(match.group(1).upper(), 0)
    place = match.start()
    found = ""
    while len(found) < length and place < len(text):
        character = text[place]
        if character.isascii() and character.isalnum():
            found += character
        elif character not in " -" or text[place - 1] in " -":
            break
        place += 1
    followed = text[place : place + 1]
    if len(found) < length or not length or (followed.isascii() and followed.isalnum()):
        return -1
    return place if is_iban(found.upper()) else -1


def _form(pattern: str) -> "re.Pattern[str]":
    return re.compile(_START + pattern + _END)


DETECTORS: Final[dict[str, tuple[Finder, ...]]] = {
    # In this order: what has a check digit is found before what has none.
    "iban": ((_IBAN, _check_iban),),
    "card": tuple((_form(pattern), _if(is_card)) for pattern in _CARDS),
    "national-id": (
        (_form(_US_SSN), _if(is_us_ssn)),
        (_form(_GB_NINO), _whole),
        (_form(_DE_TAX_ID), _if(is_de_tax_id)),
        (_form(_FR_NIR), _if(is_fr_nir)),
        (_form(_ES_DNI), _if(is_es_dni)),
        (_form(_IT_TAX_CODE), _if(is_it_tax_code)),
        (_form(_BR_CPF), _if(is_br_cpf)),
    ),
    "email": ((_EMAIL, _whole),),
    "phone": (
        (_INTERNATIONAL, _check_international),
        (_NORTH_AMERICAN, _whole),
        (_NATIONAL, _check_national),
        (_MOBILE, _whole),
        (_DOTTED, _whole),
    ),
}
