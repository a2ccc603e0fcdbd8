"""What a rollout asks of others: a Prometheus' answers, as its API gives them, and what no answer means."""

import asyncio
import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperion.control.release.probes import Probes, ask_prometheus, read_value
from hyperion.policy.verdict import QueryResult
from hyperion.schema.resource import QueryLimit

ANSWERS = {
    "good": {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1.0, "0.25"]}]}},
    "scalar": {"status": "success", "data": {"resultType": "scalar", "result": [1.0, "3"]}},
    "none": {"status": "success", "data": {"resultType": "vector", "result": []}},
    "nan": {"status": "success", "data": {"resultType": "scalar", "result": [1.0, "NaN"]}},
    "two": {
        "status": "success",
        "data": {"resultType": "vector", "result": [{"value": [1, "1"]}, {"value": [1, "2"]}]},
    },
    "matrix": {"status": "success", "data": {"resultType": "matrix", "result": []}},
    "bad": {"status": "error", "error": "parse error: unexpected end of input"},
    "odd": {"status": "success"},
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)["query"][0]
        body = b"no JSON" if query == "text" else json.dumps(ANSWERS[query]).encode()
        self.send_response(200 if url.path == "/prometheus/api/v1/query" else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/prometheus/"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(("query", "value"), [("good", 0.25), ("scalar", 3.0)])
def test_one_number_is_the_value(provider: str, query: str, value: float) -> None:
    assert ask_prometheus(QueryLimit(query, provider=provider), 7.0) == QueryResult(query, value, "", 7.0)


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("none", "expected one series, got 0"),
        ("nan", "NaN: there were no events"),
        ("two", "expected one series, got 2"),
        ("matrix", "got a matrix"),
        ("bad", "parse error"),
        ("odd", "KeyError"),
        ("text", "JSONDecodeError"),
    ],
)
def test_anything_else_is_an_error_and_never_a_value(provider: str, query: str, why: str) -> None:
    result = ask_prometheus(QueryLimit(query, provider=provider), 7.0)
    assert result.value is None
    assert why in result.error


@pytest.mark.parametrize("provider_url", ["http://127.0.0.1:1/", "file:///etc/passwd", "", "http://127.0.0.1:1/%zz"])
def test_a_provider_that_is_away_or_none_is_an_error(provider_url: str) -> None:
    assert ask_prometheus(QueryLimit("good", provider=provider_url), 7.0).error


def test_an_answer_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises((TypeError, KeyError, ValueError)):
        read_value({"status": "success", "data": {"resultType": "scalar", "result": 3}})


async def test_a_query_is_asked_once_per_interval_and_wakes_the_loop(provider: str, tmp_path: Path) -> None:
    news = asyncio.Event()
    probes = Probes(tmp_path, news.set)
    limit = QueryLimit("good", provider=provider, interval_s=15.0)
    (first,) = probes.queries("e", [limit], 100.0)
    assert (first.value, first.error) == (None, "not asked yet")
    await asyncio.wait_for(news.wait(), 60)
    assert probes.queries("e", [limit], 101.0) == (QueryResult("good", 0.25, "", 100.0),)
    news.clear()
    probes.queries("e", [limit], 116.0)
    await asyncio.wait_for(news.wait(), 60)
    assert probes.queries("e", [limit], 117.0)[0].at == 116.0
