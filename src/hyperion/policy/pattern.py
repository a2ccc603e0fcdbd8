r"""Regular expressions that take time in proportion to the text, whatever the expression and whoever wrote the text.

Done by RE2 (the extra `patterns`), which has no backtracking, and therefore no backreferences and no look-around.
"""

from importlib import import_module
from typing import Any, Final

from hyperion.schema.errors import MissingExtra

MAX_PATTERN: Final = 1_024  # characters
_MAX_BYTES: Final = 2 << 20  # of the automaton; RE2 refuses what needs more, such as large counted repetitions


class Pattern:
    """An expression that texts (UTF-8) match as a whole.

    >>> Pattern("[A-Z]{2}").matches(b"DE"), Pattern("[A-Z]{2}").matches(b"DEU")
    (True, False)
    """

    __slots__ = ("_fullmatch", "text")

    def __init__(self, text: str) -> None:
        """Raises ValueError saying what is wrong with the expression, MissingExtra without RE2."""
        if len(text) > MAX_PATTERN:
            raise ValueError(f"it has {len(text)} characters, at most {MAX_PATTERN} are allowed")
        re2 = _engine()
        options = re2.Options()
        options.max_mem, options.log_errors, options.never_capture = _MAX_BYTES, False, True
        try:
            self._fullmatch: Final[Any] = re2.compile(text, options).fullmatch
        except re2.error as error:
            reason = error.args[0]
            raise ValueError(reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)) from None
        self.text: Final = text

    def matches(self, element: bytes) -> bool:
        """Whether all of it matches; what is no UTF-8 does not match a wildcard."""
        return self._fullmatch(element) is not None


def _engine() -> Any:
    try:
        return import_module("re2")
    except ImportError:
        raise MissingExtra("`pattern` needs RE2: pip install 'hyperion-inference[patterns]'") from None
