"""Check digits: whether a number that looks like a payment card's, an account's or a person's can be one. Pure.

Called by `detectors`, with digits and letters only (upper case, no separators), which is not checked again.
"""

from typing import Final

# Lengths of IBANs by country: the IBAN registry of SWIFT.
IBAN_LENGTHS: Final[dict[str, int]] = {
    country: length
    for length, countries in (
        (15, "NO"),
        (16, "BE"),
        (18, "DK FI FK FO GL NL SD"),
        (19, "MK SI"),
        (20, "AT BA EE KZ LT LU MN XK"),
        (21, "CH HR LI LV"),
        (22, "BG BH CR DE GB GE IE ME RS VA"),
        (23, "AE GI IL IQ OM SO TL"),
        (24, "AD CZ ES MD PK RO SA SE SK TN VG"),
        (25, "LY PT ST"),
        (26, "IS TR"),
        (27, "BI DJ FR GR IT MC MR SM"),
        (28, "AL AZ BY CY DO GT HN HU LB NI PL SV"),
        (29, "BR EG PS QA UA"),
        (30, "JO KW MU YE"),
        (31, "MT SC"),
        (32, "LC"),
        (33, "RU"),
    )
    for country in countries.split()
}
_ODD_DIGITS: Final = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21)
_ODD_LETTERS: Final = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)


def is_luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B: every second digit from the right doubled, the sum of all digits a multiple of ten.

    >>> is_luhn("4111111111111111"), is_luhn("4111111111111112")
    (True, False)
    """
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit)
        if place % 2:
            value = 2 * value - 9 if value > 4 else 2 * value
        total += value
    return total % 10 == 0


def is_card(digits: str) -> bool:
    """Whether a payment scheme gives out numbers of this beginning and length, and the check digit is right.

    >>> is_card("378282246310005"), is_card("1234567890123452")
    (True, False)
    """
    size = len(digits)
    two, three, four = int(digits[:2]), int(digits[:3]), int(digits[:4])
    if digits[0] == "4":  # Visa
        known = size in (13, 16, 19)
    elif 51 <= two <= 55 or 2221 <= four <= 2720 or 2200 <= four <= 2204:  # Mastercard, Mir
        known = size == 16
    elif two in (34, 37):  # American Express
        known = size == 15
    elif two in (36, 38, 39) or 300 <= three <= 305:  # Diners Club
        known = 14 <= size <= 19
    else:  # Discover, UnionPay, JCB, Maestro
        known = 16 <= size <= 19 and (
            four == 6011 or two in (50, 56, 57, 58, 62, 63, 65, 67) or 644 <= three <= 649 or 3528 <= four <= 3589
        )
    return known and is_luhn(digits)


def is_iban(text: str) -> bool:
    """ISO 13616: the length of its country, and 1 modulo 97 with the first four characters at the end and A as 10.

    >>> is_iban("DE89370400440532013000"), is_iban("DE88370400440532013000")
    (True, False)
    """
    if IBAN_LENGTHS.get(text[:2]) != len(text):
        return False
    return int("".join([str(int(c, 36)) for c in text[4:] + text[:4]])) % 97 == 1


def is_us_ssn(digits: str) -> bool:
    """The areas, groups and serials that the Social Security Administration gives out (since 2011).

    >>> is_us_ssn("536900399"), is_us_ssn("666900399")
    (True, False)
    """
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in ("000", "666") and area[0] != "9" and group != "00" and serial != "0000"


def is_de_tax_id(digits: str) -> bool:
    """The Steuer-Identifikationsnummer: of its first ten digits just one comes twice or three times, never three in a
    row, and the eleventh is that of ISO/IEC 7064 MOD 11,10.

    >>> is_de_tax_id("86095742719"), is_de_tax_id("86095742718")
    (True, False)
    """
    first = digits[:10]
    counts = sorted([first.count(digit) for digit in set(first)], reverse=True)
    repeated = counts[0] in (2, 3) and counts[1] == 1 and not any(digit * 3 in first for digit in set(first))
    if digits[0] == "0" or not repeated:
        return False
    product = 10
    for digit in first:
        product = ((int(digit) + product) % 10 or 10) * 2 % 11
    return (11 - product) % 10 == int(digits[10])


def is_fr_nir(text: str) -> bool:
    """The numéro d'inscription au répertoire, 13 characters (2A and 2B are Corsica's departments) and the key 97 minus
    their remainder by 97.

    >>> is_fr_nir("255081416802538"), is_fr_nir("255081416802539")
    (True, False)
    """
    number = text[:13].replace("2A", "19").replace("2B", "18")
    month = text[3:5]
    born = "01" <= month <= "12" or "20" <= month <= "42" or "50" <= month <= "99"  # the latter where it is unknown
    return born and 97 - int(number) % 97 == int(text[13:])


def is_es_dni(text: str) -> bool:
    """The DNI (eight digits) or NIE (X, Y or Z and seven digits) with its letter, the remainder by 23.

    >>> is_es_dni("12345678Z"), is_es_dni("X1234567L"), is_es_dni("12345678A")
    (True, True, False)
    """
    number = int(text[:8].replace("X", "0").replace("Y", "1").replace("Z", "2"))
    return "TRWAGMYFPDXBNJZSQVHLCKE"[number % 23] == text[8]


def is_it_tax_code(text: str) -> bool:
    """The codice fiscale's sixteenth character: the sum of values by place (odd places from a table), modulo 26.

    >>> is_it_tax_code("RSSMRA85T10A562S"), is_it_tax_code("RSSMRA85T10A562T")
    (True, False)
    """
    total = 0
    for place, character in enumerate(text[:15]):
        value = ord(character) - (48 if character.isdigit() else 65)
        odd = _ODD_DIGITS if character.isdigit() else _ODD_LETTERS
        total += value if place % 2 else odd[value]
    return total % 26 == ord(text[15]) - 65


def is_br_cpf(digits: str) -> bool:
    """The CPF's two check digits, each the weighted sum of those before it, modulo 11.

    >>> is_br_cpf("52998224725"), is_br_cpf("52998224724"), is_br_cpf("11111111111")
    (True, False, False)
    """
    if digits == digits[0] * 11:
        return False
    for size in (9, 10):
        total = sum([int(digit) * (size + 1 - place) for place, digit in enumerate(digits[:size])])
        if total * 10 % 11 % 10 != int(digits[size]):
            return False
    return True
