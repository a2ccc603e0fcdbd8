"""Callers of an endpoint with retries and a fallback chain have an answer whatever its upstream does, and in time."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from hyperion.gateway.recovery.plan import Recovery
from hyperion.gateway.recovery.static_answer import StaticAnswer
from hyperion.schema.errors import InvalidConfig
from hyperion.schema.model import ModelOptions, Signature, TensorSpec
from hyperion.schema.protect import Breaker, Cache, Fallback, Protection, Retry
from hyperion.schema.snapshot import ServedModel, ServedVersion, Snapshot
from tests.gateway.bad_upstream import SIGNATURE, bad_upstream
from tests.gateway.runners import Fifo, config_of, kept_runners, served_by
from tests.gateway.serving import Serving, generate, infer, on_uvloop, serving
from tests.gateway.test_upstream import ask

STATIC = Fallback(static={"y": [[0.25, 0.5]]})


async def reach(gateway: Serving, protection: Protection, *served: tuple[str, ServedVersion]) -> None:
    """Serves these, the first one so protected."""
    models = tuple(
        ServedModel(name, one.version, (one,), protection=protection if not index else Protection())
        for index, (name, one) in enumerate(served)
    )
    await gateway.router.apply(Snapshot(next(gateway._versions), models))
    for name, _ in served:
        await gateway.until(lambda name=name: gateway.pool(name).ready)


def recovery_of(gateway: Serving, name: str = "far") -> Recovery:
    guard = gateway.pool(name).guard
    assert guard is not None
    assert guard.recovery is not None
    return guard.recovery


@on_uvloop
async def test_a_failed_try_is_made_again_and_the_caller_hears_nothing_of_it() -> None:
    async with bad_upstream() as upstream, serving() as gateway:
        await reach(gateway, Protection(retry=Retry(budget=1.0)), ("far", upstream.served()))
        upstream.how = "once"
        answer = await gateway.ask(ask(3))
        assert (answer.status, answer.output("y")) == (200, [6, 6])
        assert (answer.headers["x-hyperion-served-by"], "x-hyperion-degraded" in answer.headers) == ("model", False)
        assert upstream.inferences == 2
        assert [event["code"] for event in gateway.events()] == ["200"]  # one request, one record


@on_uvloop
async def test_without_a_budget_a_failure_is_told() -> None:
    async with bad_upstream() as upstream, serving() as gateway:
        await reach(gateway, Protection(retry=Retry(budget=0.0)), ("far", upstream.served()))
        upstream.how = "reset"
        assert (await gateway.ask(ask(3))).status == 502
        assert upstream.inferences == 1


@on_uvloop
async def test_own_mistakes_and_a_failing_model_are_not_tried_again() -> None:
    async with bad_upstream() as upstream, serving() as gateway:
        await reach(gateway, Protection(retry=Retry(budget=1.0), fallback=(STATIC,)), ("far", upstream.served()))
        upstream.how = "status:400"
        assert (await gateway.ask(ask(3))).status == 400
        upstream.how = "status:500"
        assert (await gateway.ask(ask(3))).headers["x-hyperion-served-by"] == "fallback:static"
        assert upstream.inferences == 2


HOWS = ["garbage", "half", "reset", "silent", "headers", "shape", "status:502", "status:503", "die", "hang", "slow"]


@pytest.mark.parametrize("how", HOWS)
@on_uvloop
async def test_whatever_the_upstream_does_callers_have_an_answer_in_time_and_it_is_spared(how: str) -> None:
    """Acceptance: the breaker opens within 20 calls, a fallback answers in its share of the deadline, no more than 1.2
    tries per request, and all is well again by itself."""
    protection = Protection(retry=Retry(), breaker=Breaker(open_s=0.1), fallback=(Fallback(endpoint="near"), STATIC))
    async with bad_upstream() as upstream, bad_upstream() as second, serving() as gateway:
        far, near = upstream.served(deadline_ms=1_000), second.served()
        await reach(gateway, protection, ("far", far), ("near", near))
        assert (await gateway.ask(ask(1))).headers["x-hyperion-served-by"] == "model"
        before = upstream.inferences
        if how == "die":
            await upstream.die()
        else:
            upstream.how, upstream.slow_s = how, 5.0
        requests = late = 0
        while gateway.pool("far").breaker_states()["upstream"] == 0.0:
            answers = await asyncio.gather(*[gateway.ask(ask(2)) for _ in range(4)])
            requests += 4
            for answer in answers:
                if answer.headers["x-hyperion-served-by"] == "fallback:static":  # `near` was late
                    assert (answer.status, answer.output("y")) == (200, [0.25, 0.5])
                    late += 1
                else:
                    assert (answer.status, answer.output("y")) == (200, [4, 4])
                    assert answer.headers["x-hyperion-served-by"] == "fallback:near"
                assert answer.headers["x-hyperion-degraded"] == "true"
                assert answer.json()["model_name"] == "far"
            assert requests <= 24
        assert late < requests
        asked = upstream.inferences - before
        assert asked <= 20 + 4  # those that were under way when it opened
        for _ in range(20):
            assert (await gateway.ask(ask(2))).status == 200
            requests += 1
        assert upstream.inferences - before <= 1.2 * requests
        if how == "die":
            await upstream.start()
        upstream.how = "well"
        while (await gateway.ask(ask(1))).headers["x-hyperion-served-by"] != "model":
            continue
        assert gateway.pool("far").breaker_states() == {"upstream": 0.0}


@on_uvloop
async def test_the_chain_is_gone_down_to_the_answer_that_is_declared() -> None:
    chain = (Fallback(endpoint="near"), Fallback(endpoint="nobody"), STATIC)
    async with bad_upstream() as upstream, bad_upstream() as second, serving() as gateway:
        await reach(gateway, Protection(fallback=chain), ("far", upstream.served()), ("near", second.served()))
        upstream.how = second.how = "reset"
        answer = await gateway.ask(ask(1, 2, 3))
        assert (answer.status, answer.output("y")) == (200, [0.25, 0.5] * 3)
        assert answer.headers["x-hyperion-served-by"] == "fallback:static"
        assert (upstream.inferences, second.inferences) == (1, 1)


@on_uvloop
async def test_a_hanging_chain_answers_within_the_deadline() -> None:
    chain = (Fallback(endpoint="near"), STATIC)
    async with bad_upstream() as upstream, bad_upstream() as second, serving() as gateway:
        await reach(gateway, Protection(fallback=chain), ("far", upstream.served()), ("near", second.served()))
        upstream.how = second.how = "hang"
        answer = await gateway.ask(ask(1, x_request_timeout_ms=1_000))
        assert (answer.status, answer.headers["x-hyperion-served-by"]) == (200, "fallback:static")
        assert (upstream.inferences, second.inferences) == (1, 1)


@on_uvloop
async def test_no_time_is_kept_for_those_down_the_chain_who_cannot_be_asked() -> None:
    chain = (Fallback(endpoint="near"), Fallback(endpoint="nobody"))
    async with bad_upstream() as upstream, bad_upstream() as second, serving() as gateway:
        await reach(gateway, Protection(fallback=chain), ("far", upstream.served()), ("near", second.served()))
        upstream.how, upstream.slow_s, second.how = "slow", 1.2, "reset"
        gateway.pool("near").follow_breaker(Breaker(min_calls=1))
        assert (await gateway.ask(ask(1).replace(b"/far/", b"/near/"))).status == 502
        answer = await gateway.ask(ask(1, x_request_timeout_ms=2_000))
        assert (answer.status, answer.headers.get("x-hyperion-served-by")) == (200, "model"), answer.error


@on_uvloop
async def test_the_first_failure_is_what_the_caller_hears_where_nobody_answers() -> None:
    async with bad_upstream() as upstream, bad_upstream() as second, serving() as gateway:
        chain = (Fallback(endpoint="near"),)
        await reach(gateway, Protection(fallback=chain), ("far", upstream.served()), ("near", second.served()))
        upstream.how, second.how = "status:503", "reset"
        answer = await gateway.ask(ask(1))
        assert (answer.status, "too busy" in answer.error) == (503, True)


@on_uvloop
async def test_who_had_a_share_of_the_deadline_is_not_said_to_have_had_all() -> None:
    chain = Protection(fallback=(Fallback(endpoint="near"),))
    async with bad_upstream() as upstream, bad_upstream() as second, serving() as gateway:
        await reach(gateway, chain, ("far", upstream.served()), ("near", second.served()))
        upstream.how = second.how = "hang"
        answer = await gateway.ask(ask(1, x_request_timeout_ms=400))
        assert (answer.status, answer.error.startswith("its share of the deadline, ")) == (504, True), answer.error
        alone = await gateway.ask(ask(1, x_request_timeout_ms=40).replace(b"/far/", b"/near/"))
        assert alone.error.startswith("the deadline of 40 ms passed")


@on_uvloop
async def test_all_who_share_a_stand_in_are_told_that_it_is_one() -> None:
    async with bad_upstream() as upstream, serving() as gateway:
        await reach(gateway, Protection(coalesce=True, fallback=(STATIC,)), ("far", upstream.served(links=1)))
        upstream.how, upstream.slow_s = "dying", 0.2
        answers = await asyncio.gather(*[gateway.ask(ask(1)) for _ in range(3)])
        assert upstream.inferences == 1
        for answer in answers:
            assert (answer.status, answer.output("y")) == (200, [0.25, 0.5])
            assert answer.headers["x-hyperion-served-by"] == "fallback:static"
            assert answer.headers["x-hyperion-degraded"] == "true"


@pytest.mark.parametrize("how", ["degraded", "once:degraded"])
@on_uvloop
async def test_who_stood_in_at_the_upstream_is_told_and_its_answer_not_kept(how: str) -> None:
    async with bad_upstream() as upstream, serving() as gateway:
        protection = Protection(cache=Cache(ttl_s=60), retry=Retry(budget=1.0))
        await reach(gateway, protection, ("far", upstream.served(links=1)))
        upstream.how = how
        for _ in range(2):
            answer = await gateway.ask(ask(1))
            assert (answer.status, answer.output("y")) == (200, [2, 2])
            assert answer.headers["x-hyperion-served-by"] == "fallback:static"
            assert answer.headers["x-hyperion-degraded"] == "true"
        upstream.how = "well"
        served_by = [(await gateway.ask(ask(1))).headers["x-hyperion-served-by"] for _ in range(2)]
        assert served_by == ["model", "cache"]


@on_uvloop
async def test_the_last_good_answer_stands_in_though_its_time_is_over() -> None:
    protection = Protection(cache=Cache(ttl_s=0.001), fallback=(Fallback(cached=True),))
    async with bad_upstream() as upstream, serving() as gateway:
        await reach(gateway, protection, ("far", upstream.served()))
        assert (await gateway.ask(ask(1))).status == 200
        await asyncio.sleep(0.01)
        upstream.how = "reset"
        answer = await gateway.ask(ask(1))
        assert (answer.status, answer.output("y")) == (200, [2, 2])
        assert answer.headers["x-hyperion-served-by"] == "fallback:cached"
        assert (await gateway.ask(ask(7))).status == 502  # which nobody has asked before


@on_uvloop
async def test_a_caller_that_leaves_ends_the_attempt_that_was_made_for_it() -> None:
    async with bad_upstream() as upstream, bad_upstream() as second, serving() as gateway:
        chain = (Fallback(endpoint="near"),)
        await reach(gateway, Protection(fallback=chain), ("far", upstream.served()), ("near", second.served()))
        upstream.how, second.how = "reset", "hang"
        client = await gateway.connect()
        client.send(ask(1))
        await second.hung.wait()
        client.leave()
        await second.gone.wait()
        assert [event["code"] for event in gateway.events()] == ["499"]


@on_uvloop
async def test_an_endpoint_without_a_replica_is_answered_for_at_once(tmp_path: Path) -> None:
    near = served_by([config_of(tmp_path)])
    async with kept_runners(config_of(tmp_path)), serving() as gateway:
        away = served_by([config_of(tmp_path, 7)])  # which nobody has started
        models = (
            ServedModel("obedient", "1", (away,), protection=Protection(fallback=(Fallback(endpoint="near"),))),
            ServedModel("near", "1", (near,)),
        )
        await gateway.router.apply(Snapshot(1, models))
        assert await gateway.pool("near").wait_connected(20)
        answer = await gateway.ask(infer("hello"))
        assert (answer.said, answer.headers["x-hyperion-served-by"]) == (["hello"], "fallback:near")
        assert [event["code"] for event in gateway.events()] == ["200"]
        # A stream, too; its place is given back.
        answer = await gateway.ask(generate("count:3"))
        assert (answer.status, answer.body.count(b"data: ")) == (200, 3)
        assert answer.headers["x-hyperion-served-by"] == "fallback:near"
        assert (gateway.pool().streams, gateway.pool("near").streams) == (0, 0)


@on_uvloop
async def test_a_stream_falls_back_before_its_first_part_and_not_after(tmp_path: Path) -> None:
    configs = [config_of(tmp_path, 0), config_of(tmp_path, 1)]
    async with kept_runners(*configs), serving() as gateway:
        protection = Protection(fallback=(Fallback(endpoint="near"),))
        await reach(gateway, protection, ("obedient", served_by(configs[:1])), ("near", served_by(configs[1:])))
        answer = await gateway.ask(generate("last:raise"))
        assert answer.body.count(b"data: ") == 2
        assert answer.headers["x-hyperion-served-by"] == "model"
        assert b"error" in answer.body


@on_uvloop
async def test_a_stream_that_nobody_can_begin_is_the_declared_answer_in_one_part(tmp_path: Path) -> None:
    async with serving() as gateway:
        static = Fallback(static={"said": [["sorry"]], "rows": [[1]], "turn": [[1]]})
        chain = Protection(cache=Cache(ttl_s=60), fallback=(Fallback(cached=True), static))
        away = served_by([config_of(tmp_path)])  # which nobody has started
        await gateway.router.apply(Snapshot(1, (ServedModel("obedient", "1", (away,), protection=chain),)))
        answer = await gateway.ask(generate("count:3"))
        assert (answer.status, answer.headers["x-hyperion-served-by"]) == (200, "fallback:static")
        assert answer.headers["x-hyperion-degraded"] == "true"
        assert (answer.body.count(b"data: "), b"sorry" in answer.body) == (1, True)
        assert gateway.pool().streams == 0


@on_uvloop
async def test_a_failure_counts_against_the_version_though_another_answered(tmp_path: Path) -> None:
    """Evidence of a rollout must not be hidden by what stands in."""
    configs = [config_of(tmp_path, 0)]
    async with kept_runners(*configs), serving() as gateway:
        one = served_by(configs)
        static = {"said": [["x"]], "rows": [[1]], "turn": [[1]]}
        model = ServedModel(
            "obedient", "1", (one,), log_sample=1.0, protection=Protection(fallback=(Fallback(static=static),))
        )
        await gateway.router.apply(Snapshot(1, (model,)))
        assert await gateway.pool().wait_connected(20)
        answer = await gateway.ask(infer("raise", "b"))
        assert (answer.status, answer.said) == (200, ["x", "x"])
        assert gateway.pool().watch is not None


@on_uvloop
async def test_a_second_replica_is_asked_for_what_the_first_takes_too_long_for(tmp_path: Path) -> None:
    configs = [config_of(tmp_path, index, ModelOptions(deadline_ms=20_000)) for index in (0, 1)]
    async with kept_runners(*configs), serving() as gateway:
        await reach(gateway, Protection(retry=Retry(budget=1.0, hedge=True)), ("obedient", served_by(configs)))
        await gateway.until(lambda: gateway.pool().queue_state().replicas == 2)
        for _ in range(40):
            assert (await gateway.ask(infer("quick"))).status == 200
        fifo = Fifo(tmp_path, "slow")
        with await gateway.connect() as client:
            client.send(infer(fifo.command))
            await fifo.reached()
            # The second try waits at the same place: both replicas hold it.
            await gateway.until(lambda: gateway.pool().queue_state().running_rows == 2)
            idle = asyncio.ensure_future(gateway.until(lambda: gateway.pool().queue_state().running_rows == 0))
            await fifo.release_until(idle)
            answer = await client.answer()
            assert answer.said == [fifo.command]
            assert answer.headers["x-hyperion-served-by"] == "model"
        assert len(gateway.events()) == 41


TWO = Signature((), (TensorSpec("y", "FP32", (-1, 2)), TensorSpec("z", "BYTES", (-1, 1))))


@on_uvloop
async def test_a_link_of_the_chain_that_is_of_no_use_is_said_before_it_is_needed() -> None:
    async with bad_upstream() as upstream, serving() as gateway:
        far = upstream.served()
        other = TensorSpec("z", "FP32", (-1, 2))
        near = replace(far, signature=replace(far.signature, inputs=(other,)))
        chain = Protection(fallback=(Fallback(endpoint="near"), STATIC))
        await reach(gateway, chain, ("far", far), ("near", near))
        assert gateway.router.rejected == {"far": 'its fallback "near" cannot stand in: it needs an input "z" besides'}
        chain = Protection(fallback=(Fallback(endpoint="nobody"), Fallback(static={"y": [0.5]})))
        await reach(gateway, chain, ("far", far))
        (reason,) = gateway.router.rejected.values()
        assert reason.startswith("its fallback 1 is left out: static output")
        assert gateway.events("endpoint is not as its resource says")
        await reach(gateway, Protection(fallback=(Fallback(endpoint="near"), STATIC)), ("far", far), ("near", far))
        assert gateway.router.rejected == {}


def test_a_declared_answer_stands_for_any_number_of_rows() -> None:
    fixed = StaticAnswer(TWO, {"y": [[1, 2]], "z": [["no"]]})
    outputs = fixed.outputs((), 3)
    assert outputs is not None
    assert [(one.name, one.shape, len(one.data)) for one in outputs] == [("y", (3, 2), 24), ("z", (3, 1), 18)]
    (only,) = fixed.outputs(("z",), 1) or ()
    assert only.data == b"\2\0\0\0no"
    assert StaticAnswer(SIGNATURE, {"y": [[1, 2], [3, 4]]}).outputs((), 3) is None


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        ({"y": [[1, 2]]}, '"z" is missing'),
        ({"y": [[1, 2]], "z": [["a"]], "w": [1]}, '"w" is unknown'),
        ({"y": [[1, 2, 3]], "z": [["a"]]}, "expected FP32 [-1, 2], got shape [1, 3]"),
        ({"y": [["a", "b"]], "z": [["a"]]}, "FP32"),
        ({"y": [], "z": [["a"]]}, "got shape [0]"),
    ],
)
def test_a_declared_answer_that_does_not_fit_is_refused(outputs: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        StaticAnswer(TWO, outputs)
    assert says in caught.value.message
