"""Canonical JSON: one text for one value, so that a hash over it means the value.

- keys are sorted by code point, there is no space between tokens, and the text is UTF-8;
- strings escape only `"`, `\\` and the control characters (as `\\b \\f \\n \\r \\t`, or `\\u00xx` in lower case);
- integers are written in full, floats as the shortest decimal that reads back as the same (as Python's `repr`); what
  JSON has no number for is the string "NaN", "Infinity" or "-Infinity".
"""

import hashlib
import json
import math
from typing import Any

import msgspec


def canonical(value: object) -> bytes:
    """Canonical JSON of plain data (see `plain`). ValueError for a float that is not finite.

    >>> canonical({"b": 1.0, "a": "é"}).decode()
    '{"a":"é","b":1.0}'
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return text.encode()


def plain(value: object) -> Any:
    """Structs and the like as dicts, lists, strings and numbers that canonical JSON has a form for.

    >>> plain({1: float("inf")})
    {'1': 'Infinity'}
    """
    return _finite(msgspec.to_builtins(value, str_keys=True))


def digest_of(record: object) -> str:
    """The digest of a record: SHA-256 of its canonical JSON; "" for None."""
    return "" if record is None else "sha256:" + hashlib.sha256(canonical(plain(record))).hexdigest()


def clean(text: str) -> str:
    """Text without what PostgreSQL (NUL) or UTF-8 (half a surrogate pair) has no place for."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, str):
        return value if value.isascii() else clean(value)
    if isinstance(value, dict):
        return {_finite(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
