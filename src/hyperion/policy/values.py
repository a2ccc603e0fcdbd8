"""How a prediction and a label become texts that are equal where the label says that the prediction is right. Pure.

A model may answer 3.0 where somebody who labels writes 3 or "3". `gateway` writes predictions so, `control` labels.
"""

from math import isfinite
from typing import Final

MAX_TEXT: Final = 64  # characters; two texts that are alike as far as that are taken for the same
WHOLE: Final = float(1 << 53)  # from here on not every whole number is a float


def write_value(value: str | float) -> str:
    """The text of a label, a class's index, a whole number, a truth value, or a number (to six digits).

    >>> write_value("cat"), write_value(3), write_value(3.0), write_value(True), write_value(0.1000000015)
    ('cat', '3', '3', '1', '0.1')
    """
    if isinstance(value, str):
        return value[:MAX_TEXT]
    if isinstance(value, int):
        return str(int(value))[:MAX_TEXT]
    if isfinite(value) and value == int(value) and abs(value) < WHOLE:
        return str(int(value))
    return f"{value:.6g}"
