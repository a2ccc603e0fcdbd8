"""Layer the options of a model: command line over `hyperion.yaml` over the repository's own file over defaults.

Called by every reader of this room. Pure: values in, frozen ModelOptions out.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from hyperion.schema.errors import HyperionError, InvalidConfig
from hyperion.schema.model import ModelOptions

MAX_BATCH_SIZE = 65_536
MAX_REPLICAS = 1_024
MAX_BUCKETS = 64
_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,3})?")
# (field, least, most): what the numbers may be. An hour is the longest wait; a batch never waits longer than a second.
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("max_batch_size", 1, MAX_BATCH_SIZE),
    ("max_delay_ms", 0, 1_000),
    ("replicas", 0, MAX_REPLICAS),
    ("threads", 0, 1_024),
    ("memory_mb", 0, 1 << 24),
    ("scratch_mb", 1, 1 << 24),
    ("deadline_ms", 1, 3_600_000),
)


class Layers(msgspec.Struct, frozen=True):
    """The options so far, and the names of those fields that the operator set and no file may change."""

    options: ModelOptions
    pinned: frozenset[str] = frozenset()

    def put(self, given: Mapping[str, Any], source: str, error: type[HyperionError] = InvalidConfig) -> "Layers":
        """A copy with `given` on top, checked; `source` names the file in the message. `env` and `labels` add up."""
        fresh = {key: value for key, value in given.items() if key not in self.pinned}
        for key in ("env", "labels"):
            if key in fresh:
                fresh[key] = {**getattr(self.options, key), **fresh[key]}
        self._clip_buckets(fresh)
        return Layers(check_options({**msgspec.structs.asdict(self.options), **fresh}, source, error), self.pinned)

    def _clip_buckets(self, fresh: dict[str, Any]) -> None:
        """Warm-up sizes of one layer follow a smaller `max_batch_size` of another; in one layer they must agree, and
        those that a person wrote into `hyperion.yaml` (a list, not a tuple) are checked instead."""
        most = fresh.get("max_batch_size", self.options.max_batch_size)
        together = "max_batch_size" in fresh and "buckets" in fresh
        sizes = fresh.get("buckets", self.options.buckets)
        if isinstance(most, int) and isinstance(sizes, tuple) and not together and "buckets" not in self.pinned:
            fresh["buckets"] = tuple(size for size in sizes if size <= most)


def check_options(values: Mapping[str, Any], source: str, error: type[HyperionError] = InvalidConfig) -> ModelOptions:
    """ModelOptions of plain values; raises `error` naming the field, what was expected and what was given."""
    try:
        options = msgspec.convert(dict(values), ModelOptions)
    except msgspec.ValidationError as problem:
        raise error(f"{source}: {_describe(problem)}") from problem
    for field, least, most in _RANGES:
        value = getattr(options, field)
        if not least <= value <= most:
            raise error(f"{source}: {field}: expected {least:g} to {most:g}, got {value:g}")
    if len(options.buckets) > MAX_BUCKETS or any(not 1 <= size <= options.max_batch_size for size in options.buckets):
        raise error(
            f"{source}: buckets: expected at most {MAX_BUCKETS} sizes from 1 to max_batch_size "
            f"({options.max_batch_size}), got {list(options.buckets[:8])}"
        )
    if not _DEVICE.fullmatch(options.device):
        raise error(f"{source}: device: expected auto, cpu, cuda or cuda:N, got {options.device[:40]!r}")
    return options


def _describe(problem: msgspec.ValidationError) -> str:
    """`max_batch_size: expected int, got str` of msgspec's "Expected `int`, got `str` - at `$.max_batch_size`"."""
    text, _, where = str(problem).partition(" - at `$")
    text = text.replace("`", "")
    field = where.rstrip("`").lstrip(".")
    return f"{field}: {text[:1].lower()}{text[1:]}" if field else text
