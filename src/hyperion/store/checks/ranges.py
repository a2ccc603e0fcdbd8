"""Ranges of a resource's values: checks that name the field by its path. Used by the checks of each part; pure."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from hyperion.schema.errors import InvalidResource

DAY_S = 86_400.0
MONTH_S = 30 * DAY_S
Path = tuple[str | int, ...]
Refuse = Callable[[Path, str], InvalidResource]


def check_within(value: float, least: float, most: float, path: Path, refuse: Refuse) -> None:
    """Refuse a value below `least` or above `most`."""
    if not least <= value <= most:
        raise refuse(path, f"expected {least:.15g} to {most:.15g}, got {value:.15g}")


def check_between(value: float, low: float, high: float, path: Path, refuse: Refuse) -> None:
    """Refuse a value that is not above `low` and below `high`."""
    if not low < value < high:
        raise refuse(path, f"expected between {low:g} and {high:g}, without these, got {value:.15g}")


def check_above(value: float, low: float, most: float, path: Path, refuse: Refuse) -> None:
    """Refuse a value that is not above `low`, or is above `most`."""
    if not low < value <= most:
        raise refuse(path, f"expected above {low:g}, up to {most:.15g}, got {value:.15g}")


def check_finite(resource: Struct, refuse: Refuse) -> None:
    """Refuse infinities and NaN, wherever they are."""
    for path, number in _numbers(resource, ()):
        if not math.isfinite(number):
            raise refuse(path, f"expected a finite number, got {number}")


def _numbers(value: Any, path: Path) -> Iterator[tuple[Path, float]]:
    if isinstance(value, Struct):
        for name in value.__struct_fields__:
            yield from _numbers(getattr(value, name), (*path, name))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _numbers(item, (*path, key))
    elif isinstance(value, tuple | list):
        for index, item in enumerate(value):
            yield from _numbers(item, (*path, index))
    elif isinstance(value, float):
        yield path, value
