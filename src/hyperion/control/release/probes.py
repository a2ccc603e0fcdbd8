"""What a rollout asks of others beside the looks: smoke requests to new replicas, queries to Prometheus.

Each runs as a task of its own and wakes the loop when there is news; a look reads what is there and never waits.
"""

import asyncio
import json
import math
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from hyperion.control.errands import Errands
from hyperion.control.release.smoke import run_smoke
from hyperion.fleet.replicas import name_socket
from hyperion.policy.verdict import QueryResult, name_query
from hyperion.schema.resource import QueryLimit, Smoke

_QUERY_TIMEOUT_S: Final = 10.0
_ANSWER_BYTES: Final = 4 << 20
_REMEMBERED: Final = 1_000


class Probes:
    """Results by endpoint and rollout. All methods run on the event loop's thread."""

    def __init__(self, run_dir: Path, wake: Callable[[], None]) -> None:
        self._run_dir = run_dir
        self._wake = wake
        self._smokes: dict[tuple[str, str], str] = {}
        self._results: dict[tuple[str, QueryLimit], QueryResult] = {}
        self._errands = Errands()

    def smoke(self, endpoint: str, rollout_id: str, smoke: Smoke, replicas: Sequence[str]) -> str:
        """What came of the smoke requests to these replicas: "" while they run, "pass", or why not."""
        key = (endpoint, rollout_id)
        found = self._smokes.get(key, "")
        if not found and replicas:
            sockets = [str(name_socket(self._run_dir, name)) for name in replicas]
            self._errands.start(key, self._run_smoke(key, sockets, smoke))
        return found

    def queries(self, endpoint: str, limits: Sequence[QueryLimit], now: float) -> tuple[QueryResult, ...]:
        """The last value of each query; one that is older than its interval is asked again."""
        results = []
        for limit in limits:
            key = (endpoint, limit)
            last = self._results.get(key)
            if last is None or now - last.at >= limit.interval_s or now < last.at:
                self._errands.start(key, self._query(key, limit, now))
            results.append(last or QueryResult(name_query(limit), None, "not asked yet", now))
        return tuple(results)

    async def _run_smoke(self, key: tuple[str, str], sockets: list[str], smoke: Smoke) -> None:
        self._smokes[key] = await asyncio.to_thread(run_smoke, sockets, smoke)
        while len(self._smokes) > _REMEMBERED:
            del self._smokes[next(iter(self._smokes))]
        self._wake()

    async def _query(self, key: tuple[str, QueryLimit], limit: QueryLimit, now: float) -> None:
        self._results[key] = await asyncio.to_thread(ask_prometheus, limit, now)
        while len(self._results) > _REMEMBERED:
            del self._results[next(iter(self._results))]
        self._wake()


def ask_prometheus(limit: QueryLimit, now: float) -> QueryResult:
    """Ask for the query's value now. An empty result, several series or NaN are errors: no data is never good news."""
    name = name_query(limit)
    if not limit.provider.startswith(("http://", "https://")):
        return QueryResult(name, None, "provider: expected the URL of a Prometheus server", now)
    url = f"{limit.provider.rstrip('/')}/api/v1/query?{urllib.parse.urlencode({'query': limit.promql})}"
    try:
        with urllib.request.urlopen(url, timeout=_QUERY_TIMEOUT_S) as answer:  # noqa: S310 - the scheme is checked
            body = json.loads(answer.read(_ANSWER_BYTES))
        return QueryResult(name, read_value(body), "", now)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        return QueryResult(name, None, f"{type(error).__name__}: {error}"[:300], now)


def read_value(body: Any) -> float:
    """The one number in an answer of Prometheus. Raises ValueError, KeyError, TypeError or IndexError.

    >>> read_value({"status": "success", "data": {"resultType": "scalar", "result": [0, "1.5"]}})
    1.5
    """
    if body["status"] != "success":
        raise ValueError(str(body.get("error", "no success"))[:200])
    data = body["data"]
    if data["resultType"] == "scalar":
        value = float(data["result"][1])
    elif data["resultType"] == "vector":
        if len(data["result"]) != 1:
            raise ValueError(f"expected one series, got {len(data['result'])}; sum or filter them in the query")
        value = float(data["result"][0]["value"][1])
    else:
        raise ValueError(f"expected a scalar or one series, got a {data['resultType']}")
    if math.isnan(value):
        raise ValueError("the value is NaN: there were no events")
    return value
