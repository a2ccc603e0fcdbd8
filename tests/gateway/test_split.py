"""A request that names no version goes to one of the split's, by lot or by what it sticks to; one that names a version
goes there."""

import asyncio
import json
import math
from collections import Counter

import grpc
import numpy as np
import pytest
from msgspec import structs

from hyperion.gateway.grpc.edge import start_grpc
from hyperion.gateway.release.split import place_of
from hyperion.schema.release import Split, Track
from hyperion.schema.snapshot import ServedModel, ServedVersion, Snapshot
from hyperion.wire.grpc.messages import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse
from hyperion.wire.limits import WireLimits
from tests.gateway.serving import Answer, Client, generate, infer, on_uvloop, request, serving

USERS = [f"user-{number}" for number in range(120)]


def split_of(share: float, epoch: int = 1, **more: object) -> Split:
    """Version 1 is the control, version 2 the canary."""
    return structs.replace(Split(epoch, "salt", (Track("1", 1 - share), Track("2", share))), **more)


def canary_of(served: ServedVersion) -> ServedVersion:
    return structs.replace(served, version="2", digest="sha256:" + "cd" * 32)


def version_of(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    return answer.headers["x-hyperion-model-version"]


async def ask_many(client: Client, requests: list[bytes]) -> list[Answer]:
    client.send(*requests)
    return [await client.answer() for _ in requests]


@on_uvloop
async def test_the_canary_gets_its_share_and_answers_in_its_own_name(obedient: ServedVersion) -> None:
    async with serving(access_log=False) as gateway:
        canary = canary_of(obedient)
        await gateway.release(split_of(0.2), obedient, canary)
        with await gateway.connect() as client:
            answers = []
            for _ in range(30):
                answers += await ask_many(client, [infer("x")] * 20)
        versions = Counter(map(version_of, answers))
        expected, spread = 600 * 0.2, math.sqrt(600 * 0.2 * 0.8)
        assert abs(versions["2"] - expected) < 4 * spread
        assert versions["1"] + versions["2"] == 600
        for answer in answers:
            digest = canary.digest if version_of(answer) == "2" else obedient.digest
            assert answer.headers["x-hyperion-model-digest"] == digest
            assert answer.json()["model_version"] == version_of(answer)
        tracks = gateway.tracks()
        assert {version: tracks[1, version, False].requests for version in "12"} == versions
        gateway.metrics.settle()
        shown = gateway.metrics.collect().counters["hyperion_requests_total"]
        assert {version: shown["obedient", version, "http", "200"] for version in "12"} == versions


@on_uvloop
async def test_who_names_a_version_gets_it_and_does_not_count(obedient: ServedVersion) -> None:
    async with serving() as gateway:
        await gateway.release(split_of(0.0), obedient, canary_of(obedient))
        for version in "12":
            path = f"/v2/models/obedient/versions/{version}/infer"
            assert version_of(await gateway.ask(infer("x", path=path))) == version
        assert gateway.tracks() == {}


@on_uvloop
async def test_a_header_sticks_and_a_growing_share_keeps_its_callers(obedient: ServedVersion) -> None:
    async with serving() as gateway:
        versions = (obedient, canary_of(obedient))
        before: set[str] = set()
        with await gateway.connect() as client:
            for epoch, share in enumerate((0.1, 0.3, 0.8)):
                await gateway.release(split_of(share, epoch, sticky_header="X-User-Id"), *versions)
                chosen = {user for user in USERS if version_of(await client.ask(infer("x", x_user_id=user))) == "2"}
                assert chosen == {user for user in USERS if place_of(b"salt", user.encode()) < share}
                assert before < chosen
                before = chosen


@on_uvloop
async def test_an_input_sticks_in_json_in_binary_and_in_every_route(obedient: ServedVersion) -> None:
    async with serving() as gateway:
        await gateway.release(split_of(0.5, sticky_input="command"), obedient, canary_of(obedient))
        with await gateway.connect() as client:
            seen = set()
            for user in USERS[:24]:
                expected = "2" if place_of(b"salt", user.encode()) < 0.5 else "1"
                data = len(user).to_bytes(4, "little") + user.encode()
                one = {"name": "command", "shape": [1, 1], "datatype": "BYTES"}
                head = json.dumps({"inputs": [one | {"parameters": {"binary_data_size": len(data)}}]}).encode()
                v1 = json.dumps({"instances": [{"command": [user]}]}).encode()
                asks = (
                    infer(user),
                    infer(user, "another row"),
                    request(head + data, inference_header_content_length=len(head)),
                    request(v1, "/v1/models/obedient:predict"),
                    request(v1, "/invocations", content_type="application/json"),
                    generate(user, stream=False),
                )
                assert {version_of(await client.ask(each)) for each in asks} == {expected}
                seen.add(expected)
                stream = await client.ask(generate("count:2"))
                assert version_of(stream) == ("2" if place_of(b"salt", b"count:2") < 0.5 else "1")
            assert seen == {"1", "2"}


@on_uvloop
async def test_a_track_that_does_not_answer_yet_gets_nothing_and_nothing_counts_meanwhile(
    obedient: ServedVersion,
) -> None:
    nowhere = structs.replace(canary_of(obedient), replicas=(structs.replace(obedient.replicas[0], socket="/nowhere"),))
    async with serving() as gateway:
        await gateway.release(None, obedient)
        served = ServedModel("obedient", "1", (obedient, nowhere), split_of(0.9))
        await asyncio.wait_for(gateway.router.apply(Snapshot(100, (served,))), 1)
        with await gateway.connect() as client:
            assert {version_of(await client.ask(infer("x"))) for _ in range(20)} == {"1"}
            assert gateway.tracks() == {}
            served = structs.replace(served, versions=(obedient,))
            await gateway.router.apply(Snapshot(101, (served,)))
            assert version_of(await client.ask(infer("x"))) == "1"
            assert 'version "2"' in gateway.router.rejected["obedient"]


@on_uvloop
async def test_the_end_of_a_split_sends_everybody_to_the_default(obedient: ServedVersion) -> None:
    async with serving() as gateway:
        versions = (obedient, canary_of(obedient))
        await gateway.release(split_of(1.0), *versions)
        with await gateway.connect() as client:
            assert {version_of(await client.ask(infer("x"))) for _ in range(20)} == {"2"}
            await gateway.release(None, *versions)
            assert {version_of(await client.ask(infer("x"))) for _ in range(20)} == {"1"}


def ask_grpc(port: int, users: list[str]) -> tuple[list[str], list[str], list[str]]:
    """The versions that answer each user by header, by header in a stream, and by lot."""

    def message(user: str) -> bytes:
        raw = len(user).to_bytes(4, "little") + user.encode()
        one = ModelInferRequest(model_name="obedient", raw_input_contents=[raw])
        one.inputs.add(name="command", datatype="BYTES", shape=[1, 1])
        data: bytes = one.SerializeToString()
        return data

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        unary = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        by_header, by_stream, by_lot = [], [], []
        for user in users:
            metadata = (("x-user-id", user),)
            by_header.append(ModelInferResponse.FromString(unary(message("x"), metadata=metadata)).model_version)
            answers = list(stream(iter([message("count:1")]), metadata=metadata))
            by_stream.append(ModelStreamInferResponse.FromString(answers[0]).infer_response.model_version)
            by_lot.append(ModelInferResponse.FromString(unary(message("x"))).model_version)
        return by_header, by_stream, by_lot


@on_uvloop
async def test_grpc_calls_and_streams_are_split_as_well(obedient: ServedVersion) -> None:
    async with serving(access_log=False) as gateway:
        await gateway.release(split_of(0.5, sticky_header="x-user-id"), obedient, canary_of(obedient))
        edge = await start_grpc(gateway.pipeline, gateway.config, WireLimits(), gateway.log)
        users = USERS[:40]
        by_header, by_stream, by_lot = await asyncio.to_thread(ask_grpc, edge.port, users)
        expected = ["2" if place_of(b"salt", user.encode()) < 0.5 else "1" for user in users]
        assert by_header == by_stream == expected
        assert set(by_lot) == {"1", "2"}
        tracks = gateway.tracks()
        assert sum(track.requests for track in tracks.values()) == 3 * len(users)
        await edge.stop(0)


@pytest.mark.parametrize("salt", [b"", b"salt", b"s" * 100])
def test_places_are_spread_evenly_and_differ_from_salt_to_salt(salt: bytes) -> None:
    places = np.array([place_of(salt, b"%d" % number) for number in range(4000)])
    counts = np.histogram(places, bins=10, range=(0, 1))[0]
    assert counts.sum() == 4000
    assert abs(counts - 400).max() < 5 * math.sqrt(400)
    other = np.array([place_of(salt + b"!", b"%d" % number) for number in range(4000)])
    assert abs(np.corrcoef(places, other)[0, 1]) < 0.1
