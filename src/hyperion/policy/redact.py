"""Texts without personal data, and what of an endpoint's values may be kept. Pure.

Whatever writes a log line or keeps a value asks here first: all detectors look at free text (messages of exceptions,
what a model prints), those that an endpoint names at its values, and of inputs and outputs that it names nothing is
kept. Lengths are bounded, and what is cut is cut after the look, so that no half of an address stays.
"""

import re
from collections.abc import Iterable
from typing import Final

from hyperion.policy.detectors import DETECTORS, LONGEST, find, may_hold
from hyperion.schema.model import Signature

ALL: Final = tuple(DETECTORS)
MAX_TEXT: Final = 16_384  # characters of a text that are looked at; the others are cut away
WITHHELD: Final = "its message is withheld, as the endpoint redacts fields"
_PLACE: Final = re.compile(r" \([^()\n]{1,4096}\.py:[0-9]{1,9}\)")
_CUT: Final = " … (cut)"


def redact_text(text: str, detectors: Iterable[str] = ALL) -> str:
    """The text with `[email]`, `[card]` … in place of what these detectors find; at most about MAX_TEXT characters.

    >>> redact_text("'jane@example.com' is no number")
    "'[email]' is no number"
    >>> redact_text("4111 1111 1111 1111", ["email"])
    '4111 1111 1111 1111'
    """
    end = ""
    if len(text) > MAX_TEXT + LONGEST:
        text, end = text[: MAX_TEXT + LONGEST], _CUT
    if may_hold(text):
        for detector in detectors:
            spans = find(text, detector)
            if spans:
                text = _mask(text, spans, f"[{detector}]")
    # What began before the cut and went on behind it is whole nowhere, and lies in what is left out here.
    return text[:-LONGEST] + end if end else text


def shorten(text: str, most: int) -> str:
    """The first `most` characters of a text that has been looked at as a whole (as far as MAX_TEXT).

    >>> shorten("from jane@example.com", 12)
    'from [email]'
    """
    return redact_text(text)[:most]


def is_personal(identifier: str) -> bool:
    """Whether an id that a caller chose is somebody's address or number. Those with letters in them are asked for
    e-mail addresses and IBANs only: random ones contain any number.

    >>> is_personal("jane@example.com"), is_personal("+49 171 1234567"), is_personal("6f1c-4111111111111111")
    (True, True, False)
    """
    if "@" in identifier or "%40" in identifier:
        return True
    if identifier.upper() == identifier.lower():
        return redact_text(identifier) != identifier
    return identifier[2:4].isdigit() and identifier[:2].isalpha() and bool(find(identifier, "iban"))


def _mask(text: str, spans: list[tuple[int, int]], mark: str) -> str:
    pieces: list[str] = []
    last = 0
    for start, stop in spans:
        pieces.append(text[last:start])
        last = stop
    return mark.join([*pieces, text[last:]])


class Redaction:
    """What `log.redact` of an endpoint asks for: names of detectors, `input:NAME` and `output:NAME`."""

    __slots__ = ("detectors", "inputs", "outputs")

    def __init__(self, redact: Iterable[str] = ()) -> None:
        given = tuple(redact)
        self.detectors: Final = tuple(name for name in ALL if name in given)
        self.inputs: Final = frozenset(name[6:] for name in given if name.startswith("input:"))
        self.outputs: Final = frozenset(name[7:] for name in given if name.startswith("output:"))

    @property
    def fields(self) -> bool:
        """Whether inputs or outputs are named. Then no message that code wrote about them is kept, either."""
        return bool(self.inputs or self.outputs)

    def value(self, text: str) -> str:
        """A value as it may be kept.

        >>> Redaction(["email"]).value("jane@example.com"), Redaction().value("jane@example.com")
        ('[email]', 'jane@example.com')
        """
        return redact_text(text, self.detectors) if self.detectors else text

    def failure(self, detail: str) -> str:
        """What a log may say of an exception of user code, given as `Type: message (file:line)`: all of it where no
        field is named, else only its type and the place in the code.

        >>> Redaction(["input:x"]).failure("ValueError: no number: 'secret' (/m/model.py:3)")
        'ValueError (/m/model.py:3): its message is withheld, as the endpoint redacts fields'
        """
        if not self.fields:
            return redact_text(detail)
        kind, places = detail.partition(": ")[0], _PLACE.findall(detail)
        return f"{kind if kind.isidentifier() else 'an error'}{places[-1] if places else ''}: {WITHHELD}"

    def refusal(self, code: str, message: str) -> str:
        """What a log may say of a refused request: the message, or, as it may quote a value, the code where fields are
        named.

        >>> Redaction(["input:x"]).refusal("malformed", 'input "x": element 0: 300 is out of range for UINT8')
        'malformed: its message is withheld, as the endpoint redacts fields'
        """
        return f"{code}: {WITHHELD}" if self.fields else redact_text(message)


def explain_unknown_fields(redact: Iterable[str], signature: Signature) -> str:
    """Which `input:NAME` or `output:NAME` the model does not have, "" for none: what is misspelt would be kept.

    >>> from hyperion.schema.model import TensorSpec
    >>> explain_unknown_fields(["input:y"], Signature((TensorSpec("x", "FP32", (-1, 4)),), ()))
    'log.redact: the model has no input "y"; its inputs are x'
    """
    redaction = Redaction(redact)
    for kind, named, specs in (
        ("input", redaction.inputs, signature.inputs),
        ("output", redaction.outputs, signature.outputs),
    ):
        known = [spec.name for spec in specs]
        for name in sorted(named.difference(known)):
            return f'log.redact: the model has no {kind} "{name[:64]}"; its {kind}s are {", ".join(known)}'
    return ""
