"""Names of models: what is allowed, because they become URL segments, metric labels and process titles."""

import re

from hyperion.schema.errors import ModelRefused

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def is_valid_name(name: str) -> bool:
    """True for 1 to 128 letters, digits, `.`, `_`, `-`, the first a letter or a digit.

    >>> is_valid_name("fraud-2.1"), is_valid_name("-x"), is_valid_name("a/b")
    (True, False, False)
    """
    return _NAME.fullmatch(name) is not None


def check_name(name: str, source: str) -> str:
    """Returns `name`, or raises ModelRefused; `source` says where it came from (`the file's name`, `--name`)."""
    if not is_valid_name(name):
        shown = name if len(name) <= 80 else name[:77] + "..."
        raise ModelRefused(
            f"{source}: {shown!r} cannot be a model's name (1 to 128 letters, digits, '.', '_' or '-', starting with a "
            "letter or digit); give one with --name"
        )
    return name
