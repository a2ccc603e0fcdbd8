"""What the graphs of this worker did, as counters: which step answered how many rows, and which had no part in an
answer that it should have had. One for all pools, as these come and go with each snapshot. Made with the setting of
pools.
"""

from typing import Final

Series = dict[tuple[str, ...], float]

MAX_SERIES: Final = 2_000  # as in `telemetry/metrics`
OTHER: Final = ("other", "other")


class GraphBook:
    """`endpoint` is the graph's."""

    def __init__(self) -> None:
        self._rows: Series = {}
        self._degraded: Series = {}

    def count_rows(self, endpoint: str, step: str, rows: int) -> None:
        """A step of a switch or a cascade has answered these."""
        _add(self._rows, (endpoint, step), float(rows))

    def count_degraded(self, endpoint: str, step: str) -> None:
        """An answer went out without this step."""
        _add(self._degraded, (endpoint, step), 1.0)

    def counters(self) -> dict[str, Series]:
        """Metric → labels → count."""
        return {"hyperion_graph_rows_total": dict(self._rows), "hyperion_graph_degraded_total": dict(self._degraded)}


def _add(series: Series, labels: tuple[str, ...], count: float) -> None:
    key = labels if labels in series or len(series) < MAX_SERIES else OTHER
    series[key] = series.get(key, 0.0) + count
