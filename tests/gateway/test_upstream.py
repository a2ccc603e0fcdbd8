"""Another server behind an endpoint: what it answers reaches callers, and what it does wrong harms none of them."""

import json
import ssl
from pathlib import Path

import pytest
from msgspec.structs import replace

from hyperion.gateway.upstream.http import HttpService
from hyperion.schema.protect import Breaker, Upstream
from hyperion.schema.snapshot import ServedVersion
from tests.gateway.bad_upstream import SIGNATURE, BadUpstream, bad_upstream
from tests.gateway.serving import Answer, Serving, on_uvloop, request, serving


def ask(*values: float, **headers: str | int) -> bytes:
    """Rows of two equal values each."""
    rows = [[value, value] for value in values]
    one = {"name": "x", "shape": [len(rows), 2], "datatype": "FP32", "data": rows}
    return request(json.dumps({"inputs": [one]}).encode(), "/v2/models/far/infer", **headers)


async def reach(gateway: Serving, served: ServedVersion) -> None:
    await gateway.apply(("far", served))
    await gateway.until(lambda: gateway.pool("far").ready)


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@on_uvloop
async def test_tensors_go_there_and_back_on_connections_that_are_kept(binary: bool) -> None:
    async with bad_upstream() as upstream, serving() as gateway:
        upstream.binary = binary
        await reach(gateway, upstream.served(links=1))
        looked = upstream.connections
        for value in range(5):
            answer = await gateway.ask(ask(value, 0.5, x_request_id="r-1"))
            assert (answer.status, answer.output("y")) == (200, [2 * value, 2 * value, 1.0, 1.0])
        assert upstream.connections == looked + 1
        head = upstream.heads[0]
        assert ("inference-header-content-length" in head) is binary
        assert head["x-request-id"] == "r-1"
        assert 0 < int(head["x-request-timeout-ms"]) <= 2_000


WRONG = [
    ("garbage", 502, "is not HTTP/1.1"),
    ("half", 502, "in the middle of its answer"),
    ("silent", 502, "before it answered"),
    ("reset", 502, "before it answered"),
    ("headers", 502, "more than 16384 bytes"),
    ("shape", 502, "expected FP32 [1, 2]"),
    ("status:400", 400, "it does not want to"),
    ("status:422", 422, "it does not want to"),
    ("status:413", 413, "it does not want to"),
    ("status:404", 502, "does not have the model"),
    ("status:401", 502, "credentials of this gateway"),
    ("status:504", 502, "in its own time"),
    ("status:301", 502, "answered with status 301"),
    ("status:500", 500, "it does not want to"),
    ("status:503", 503, "too busy"),
    ("status:429", 503, "too busy"),
]


@pytest.mark.parametrize(("how", "status", "error"), WRONG, ids=[how for how, *_ in WRONG])
@on_uvloop
async def test_whatever_it_does_wrong_is_told_and_the_next_request_is_answered(
    how: str, status: int, error: str
) -> None:
    async with bad_upstream() as upstream, serving() as gateway:
        await reach(gateway, upstream.served(links=1))
        upstream.how, upstream.retry_after = how, "7"
        answer = await gateway.ask(ask(1))
        assert (answer.status, error in answer.error) == (status, True), answer.error
        assert "second line" not in answer.error
        assert answer.headers.get("retry-after") == ("7" if status == 503 else None)
        assert upstream.inferences == 1
        upstream.how = "well"
        assert (await gateway.ask(ask(1))).output("y") == [2, 2]


@on_uvloop
async def test_a_request_that_is_refused_in_a_batch_fails_alone() -> None:
    async with bad_upstream() as upstream, serving() as gateway:
        await reach(gateway, upstream.served(links=1, batch=True))
        upstream.how = "poison"
        with await gateway.connect() as client:
            client.send(*[ask(value) for value in (1, 2, -1, 3)])
            answers = [await client.answer() for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 400, 200]
        assert answers[2].error.endswith("a negative value")
        assert [answers[index].output("y")[0] for index in (0, 1, 3)] == [2, 4, 6]
        assert upstream.rows == [4, 1, 1, 1, 1]


@on_uvloop
async def test_a_connection_that_it_closed_while_idle_costs_no_request() -> None:
    async with bad_upstream() as upstream, serving() as gateway:
        await reach(gateway, upstream.served(links=1))
        for value in (1, 2, 3):
            assert (await gateway.ask(ask(value))).output("y") == [2 * value] * 2
            for writer in tuple(upstream._writers):
                writer.transport.abort()
        assert upstream.inferences == 3


@on_uvloop
async def test_a_connection_that_was_idle_for_long_is_not_trusted_with_a_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bad_upstream() as upstream, serving() as gateway:
        await reach(gateway, upstream.served(links=1))
        looked = upstream.connections
        assert [(await gateway.ask(ask(1))).status for _ in range(2)] == [200, 200]
        assert upstream.connections == looked + 1
        monkeypatch.setattr("hyperion.gateway.upstream.http.MAX_IDLE_NS", 0)
        assert (await gateway.ask(ask(1))).output("y") == [2, 2]
        assert (upstream.connections, upstream.inferences) == (looked + 2, 3)


@on_uvloop
async def test_a_request_that_the_server_had_when_it_ended_a_kept_connection_is_not_sent_again() -> None:
    async with bad_upstream() as upstream, serving() as gateway:
        await reach(gateway, upstream.served(links=1))
        assert (await gateway.ask(ask(1))).status == 200
        upstream.how, upstream.slow_s = "dying", 0.6
        answer = await gateway.ask(ask(1))
        assert (answer.status, "before it answered" in answer.error) == (502, True)
        assert upstream.inferences == 2


@on_uvloop
async def test_a_step_of_a_sequence_is_never_sent_twice() -> None:
    async with bad_upstream() as upstream, serving() as gateway:
        await reach(gateway, upstream.served(links=1))
        assert (await gateway.ask(ask(1))).status == 200
        upstream.how = "silent"
        one = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 1]}
        body = json.dumps({"inputs": [one], "parameters": {"sequence_id": 7}}).encode()
        assert (await gateway.ask(request(body, "/v2/models/far/infer"))).status == 502
        assert upstream.inferences == 2


@on_uvloop
async def test_who_leaves_ends_what_is_under_way_there() -> None:
    async with bad_upstream() as upstream, serving() as gateway:
        await reach(gateway, upstream.served(links=1))
        upstream.how = "hang"
        client = await gateway.connect()
        client.send(ask(1))
        await upstream.hung.wait()
        client.leave()
        await upstream.gone.wait()
        upstream.how = "well"
        assert (await gateway.ask(ask(1))).output("y") == [2, 2]


@on_uvloop
async def test_the_deadline_ends_what_is_under_way_there() -> None:
    async with bad_upstream() as upstream, serving() as gateway:
        await reach(gateway, upstream.served(links=1))
        upstream.how = "hang"
        answer = await gateway.ask(ask(1, x_request_timeout_ms=500))
        assert answer.status == 504
        await upstream.gone.wait()
        upstream.how = "well"
        assert (await gateway.ask(ask(1))).output("y") == [2, 2]


@on_uvloop
async def test_impatient_callers_open_no_breaker_of_an_upstream_that_heeds_their_deadlines() -> None:
    async with bad_upstream() as upstream, serving() as gateway:
        await reach(gateway, upstream.served(links=2))
        gateway.pool("far").follow_breaker(Breaker(min_calls=2))
        upstream.how = "punctual"
        for _ in range(5):
            answer = await gateway.ask(ask(1, x_request_timeout_ms=20))
            assert (answer.status, "the deadline of 20 ms passed" in answer.error) == (504, True), answer.error
        assert gateway.pool("far").breaker_states() == {"upstream": 0.0}
        upstream.how = "well"
        assert (await gateway.ask(ask(1))).status == 200


@on_uvloop
async def test_an_upstream_that_needs_all_of_the_endpoints_deadline_is_left_alone() -> None:
    async with bad_upstream() as upstream, serving() as gateway:
        await reach(gateway, upstream.served(links=2, deadline_ms=40))
        gateway.pool("far").follow_breaker(Breaker(min_calls=2))
        upstream.how = "punctual"
        assert [(await gateway.ask(ask(1))).status for _ in range(2)] == [504, 504]
        assert gateway.pool("far").breaker_states() == {"upstream": 2.0}


async def until_open(gateway: Serving, upstream: BadUpstream) -> list[Answer]:
    """Asks until the breaker is open."""
    answers = []
    while gateway.pool("far").breaker_states().get("upstream") != 2.0:
        answers.append(await gateway.ask(ask(1)))
        assert len(answers) <= 20
    return answers


@pytest.mark.parametrize("how", ["garbage", "half", "reset", "silent", "headers", "status:503", "status:500", "die"])
@on_uvloop
async def test_the_breaker_opens_within_twenty_calls_and_closes_by_itself(how: str) -> None:
    async with bad_upstream() as upstream, serving() as gateway:
        served = upstream.served(links=2)
        await reach(gateway, served)
        gateway.pool("far").follow_breaker(Breaker(open_s=0.05))
        if how == "die":
            await upstream.die()
        else:
            upstream.how = how
        answers = await until_open(gateway, upstream)
        assert {answer.status for answer in answers} <= {500, 502, 503}
        asked = upstream.inferences
        assert asked <= 20
        refused = await gateway.ask(ask(1))
        assert (refused.status, "left alone" in refused.error or refused.status == 502) == (refused.status, True)
        if how == "die":
            await upstream.start()
        else:
            upstream.how = "well"
        while (await gateway.ask(ask(1))).status != 200:
            continue
        assert gateway.pool("far").breaker_states() == {"upstream": 0.0}
        events = [event["event"] for event in map(json.loads, gateway.log_stream.getvalue().splitlines())]
        assert "breaker open" in events
        assert "breaker closed" in events


@on_uvloop
async def test_the_metrics_show_the_breaker() -> None:
    async with bad_upstream() as upstream, serving() as gateway:
        await reach(gateway, upstream.served(links=1))
        upstream.how = "reset"
        await until_open(gateway, upstream)
        text = (await gateway._scrape()).decode()
        assert 'hyperion_breaker_state{endpoint="far",version="1",replica="upstream"} 2' in text


@on_uvloop
async def test_one_that_says_it_is_not_ready_is_not_asked() -> None:
    async with bad_upstream() as upstream, serving() as gateway:
        upstream.ready = False
        await gateway.apply(("far", upstream.served()))
        await gateway.until(lambda: not gateway.pool("far").reachable)
        answer = await gateway.ask(ask(1))
        assert (answer.status, "says that it is not ready" in answer.error) == (502, True)
        assert upstream.inferences == 0
        assert gateway.pipeline.are_models_ready()  # the gateway itself is
        upstream.ready = True
        await gateway.until(lambda: gateway.pool("far").ready)
        assert (await gateway.ask(ask(1))).output("y") == [2, 2]


@on_uvloop
async def test_credentials_come_from_a_file_and_follow_it(tmp_path: Path) -> None:
    path = tmp_path / "headers"
    path.write_text("# of the far server\nAuthorization: Bearer one\n")
    path.chmod(0o600)
    async with bad_upstream() as upstream, serving(credential_dirs=(str(tmp_path),)) as gateway:
        await reach(gateway, upstream.served(links=1, headers_from=str(path)))
        await gateway.ask(ask(1))
        assert upstream.heads[-1]["authorization"] == "bearer one"


@on_uvloop
async def test_a_look_that_ends_in_a_bug_is_said_and_the_next_one_finds_the_upstream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    look = HttpService.look
    monkeypatch.setattr(HttpService, "look", lambda _self: {}["a bug"])
    async with bad_upstream() as upstream, serving() as gateway:
        await gateway.apply(("far", upstream.served()))
        await gateway.until(lambda: gateway.events("upstream away"))
        answer = await gateway.ask(ask(1))
        assert (answer.status, "cannot be asked (KeyError)" in answer.error) == (502, True), answer.error
        monkeypatch.setattr(HttpService, "look", look)
        await gateway.until(lambda: gateway.pool("far").ready)


@on_uvloop
async def test_a_name_that_no_resolver_takes_is_said_at_once() -> None:
    async with bad_upstream() as upstream, serving() as gateway:
        served = upstream.served()
        assert served.upstream is not None
        far = replace(served, upstream=replace(served.upstream, url=f"http://{'a' * 64}.example"))
        await gateway.apply(("far", far))
        pool = gateway.pool("far")
        await gateway.until(lambda: gateway.events("upstream away"))
        assert (await gateway.ask(ask(1))).status == 502
        for link in pool.links():  # as if it had been found before
            link.ready = True
        pool._unreachable = ""
        assert (await gateway.ask(ask(1))).status == 502


@pytest.mark.parametrize("text", ["no colon", "host: x", "a b: c", "content-length: 3"])
@on_uvloop
async def test_a_file_of_credentials_that_cannot_be_used_is_said_and_not_quoted(tmp_path: Path, text: str) -> None:
    path = tmp_path / "headers"
    path.write_text(text)
    path.chmod(0o600)
    async with bad_upstream() as upstream, serving(credential_dirs=(str(tmp_path),)) as gateway:
        await gateway.apply(("far", upstream.served(headers_from=str(path))))
        await gateway.until(lambda: gateway.events("upstream away"))
        (event, *_) = gateway.events("upstream away")
        assert "line 1" in event["reason"]
        assert text not in event["reason"]


@on_uvloop
async def test_a_file_of_credentials_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "headers"
    path.write_text("authorization: Bearer one")
    path.chmod(0o640)
    async with bad_upstream() as upstream, serving(credential_dirs=(str(tmp_path),)) as gateway:
        await gateway.apply(("far", upstream.served(headers_from=str(path))))
        await gateway.until(lambda: gateway.events("upstream away"))
        assert "chmod 600" in gateway.events("upstream away")[0]["reason"]
        assert not upstream.heads


@on_uvloop
async def test_a_file_of_credentials_outside_of_their_directories_is_never_sent_nor_named(tmp_path: Path) -> None:
    allowed, secret = tmp_path / "credentials", tmp_path / "ledger.key"
    allowed.mkdir()
    secret.write_text("secret: of the platform")
    secret.chmod(0o600)
    link = allowed / "link"
    link.symlink_to(secret)
    async with bad_upstream() as upstream, serving(credential_dirs=(str(allowed),)) as gateway:
        await gateway.apply(("far", upstream.served(headers_from=str(link))))
        await gateway.until(lambda: gateway.events("upstream away"))
        reason = gateway.events("upstream away")[0]["reason"]
        assert "--credential-dirs" in reason
        assert str(tmp_path) not in reason, "callers see the reason"
        assert not upstream.heads


@pytest.mark.parametrize(
    "upstream",
    [
        Upstream("http://"),
        Upstream("ftp://x"),
        Upstream("http://x:y"),
        Upstream("http://x", protocol="openai"),
        Upstream("https://x", ca_file="/nowhere"),
    ],
)
@on_uvloop
async def test_an_address_that_cannot_be_used_is_said(upstream: Upstream) -> None:
    async with serving() as gateway:
        await gateway.apply(
            ("far", ServedVersion("1", "", 1, "", SIGNATURE, BadUpstream().served().options, (), upstream))
        )
        await gateway.until(lambda: gateway.events("upstream unusable"))
        assert (await gateway.ask(ask(1))).status == 502


@on_uvloop
async def test_over_tls_only_who_is_signed_by_the_given_authority_is_asked(authority: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority / "server.pem", authority / "server.key")
    async with bad_upstream(context) as upstream, serving() as gateway:
        await gateway.apply(("far", upstream.served(links=1)))
        await gateway.until(lambda: gateway.events("upstream away"))
        assert (await gateway.ask(ask(1))).status == 502
        assert upstream.inferences == 0
        await gateway.apply()
        await reach(gateway, upstream.served(links=1, ca_file=str(authority / "ca.pem")))
        assert (await gateway.ask(ask(1))).output("y") == [2, 2]
