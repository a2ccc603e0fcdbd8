"""When a caller is told to come back: with every 429 and 503, and never before it is worth it."""

import pytest

from hyperion.gateway.front.caller import UNKNOWN_PEER
from hyperion.gateway.grpc.status import error_metadata
from hyperion.gateway.http.exchange import JSON, Exchange
from hyperion.gateway.http.status import STATUS
from hyperion.gateway.jobs.recorder import Recorder
from hyperion.schema.errors import (
    DeadlineExceeded,
    HyperionError,
    NotReady,
    Overloaded,
    RateLimited,
    RunnerLost,
    StorageFailed,
    UpstreamBusy,
    UpstreamFailed,
)
from hyperion.schema.job import StoredAnswer

COME_BACK = (NotReady, Overloaded, RateLimited, RunnerLost, StorageFailed, UpstreamBusy)


class Dated:
    date = b"today"


def exchange_of(told: list[StoredAnswer]) -> Exchange:
    return Exchange(Recorder(Dated(), UNKNOWN_PEER, told.append), b"POST", b"/", {}, 0)


def over_http(error: HyperionError) -> str | None:
    told: list[StoredAnswer] = []
    exchange_of(told).fail(error)
    (answer,) = told
    assert answer.status == STATUS[error.code]
    return dict(answer.headers).get("retry-after")


def over_grpc(error: HyperionError) -> str | None:
    return dict(error_metadata(error, "id")).get("retry-after")


@pytest.mark.parametrize(("after_s", "told"), [(0.01, "1"), (1.0, "1"), (1.2, "2"), (2.4, "3"), (59.9, "60")])
def test_nobody_is_told_to_come_back_too_early(after_s: float, told: str) -> None:
    error = RateLimited("over a limit", retry_after_s=after_s)
    assert (over_http(error), over_grpc(error)) == (told, told)


@pytest.mark.parametrize("kind", COME_BACK)
def test_whoever_is_refused_for_now_is_told_when_to_come_back(kind: type[HyperionError]) -> None:
    error = kind("not now")
    assert (over_http(error), over_grpc(error)) == ("1", "1")


@pytest.mark.parametrize("kind", [DeadlineExceeded, UpstreamFailed])
def test_whoever_may_come_back_at_once_is_told_no_time(kind: type[HyperionError]) -> None:
    assert (over_http(kind("failed")), over_grpc(kind("failed"))) == (None, None)


def test_a_probe_that_finds_nothing_ready_is_told_when_to_look_again() -> None:
    told: list[StoredAnswer] = []
    exchange_of(told).respond(503, JSON, b'{"ready":false}')
    exchange_of(told).respond(200, JSON, b'{"ready":true}')
    assert [dict(answer.headers).get("retry-after") for answer in told] == ["1", None]
