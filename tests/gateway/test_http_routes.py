"""Routes and statuses: every path of the interface, every error, and nothing of ours in an answer."""

import json

import pytest
from msgspec import structs

from hyperion.gateway.grpc.status import CODES as GRPC_CODES
from hyperion.gateway.http.status import CODES, REASONS, STATUS, status_line
from hyperion.gateway.http.targets import Target, parse_path
from hyperion.schema import errors
from hyperion.schema.errors import HyperionError, ModelRefused, UnknownRoute
from hyperion.schema.snapshot import ModelState, ServedVersion
from tests.gateway.serving import get, infer, on_uvloop, request, serving

ALL_CODES = {
    kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HyperionError)
}  # fmt: skip


def test_every_error_has_a_status_in_both_protocols() -> None:
    assert set(STATUS) == set(GRPC_CODES) == ALL_CODES | {"ok"}


def test_every_status_has_a_reason_and_fits_whose_fault_it_is() -> None:
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, HyperionError):
            status = STATUS[kind.code]
            assert status_line(status).startswith(b"HTTP/1.1 %d " % status)
            assert (400 <= status < 500) == (kind.blame == "caller"), kind
    assert set(STATUS.values()) <= set(REASONS)
    assert CODES["client_gone"] == "499"


@pytest.mark.parametrize(
    ("path", "target"),
    [
        (b"/", Target("root")),
        (b"/v2", Target("server")),
        (b"/v2/", Target("server")),
        (b"/v2/health/live", Target("live")),
        (b"/v2/health/ready?verbose=1", Target("ready")),
        (b"/v2/models", Target("models")),
        (b"/v2/models/m", Target("model", "m")),
        (b"/v2/models/m/versions/3", Target("model", "m", "3")),
        (b"/v2/models/m/ready", Target("model_ready", "m")),
        (b"/v2/models/m/versions/3/ready", Target("model_ready", "m", "3")),
        (b"/v2/models/m/infer", Target("infer", "m")),
        (b"/v2/models/my%20model/infer", Target("infer", "my model")),
        (b"/v2/models/m/versions/3/generate_stream", Target("generate_stream", "m", "3")),
        (b"/v2/repository/index", Target("index")),
        (b"/v2/repository/models/m/load", Target("load", "m")),
        (b"/v2/repository/models/m/unload", Target("unload", "m")),
        (b"/v1/models", Target("v1_models")),
        (b"/v1/models/m", Target("v1_model", "m")),
        (b"/v1/models/m:predict", Target("predict", "m")),
        (b"/v1/models/a:b:predict", Target("predict", "a:b")),
        (b"/ping", Target("ping")),
        (b"/invocations", Target("invocations")),
        (b"/metrics", Target("metrics")),
        (b"/healthz", Target("live")),
        (b"/livez", Target("live")),
        (b"/readyz", Target("ready")),
        (b"http://host:80/v2/models/m", Target("model", "m")),
        (b"http://host", Target("root")),
    ],
)
def test_a_path_names_its_target(path: bytes, target: Target) -> None:
    assert parse_path(path) == target


@pytest.mark.parametrize(
    "path",
    [
        b"/v3", b"/v2/models/m/versions", b"/v2/models/m/versions/3/nothing", b"/v2/models/m/infer/more",
        b"/v1/models/m:explain", b"/v1/models/m/more", b"/v2/repository/models/m", b"/v2/repository/models/m/purge",
        b"/v2/models/../../metrics", b"/../metrics", b"*", b"host:443", b"/v2://host/metrics", b"/v2%2fhealth%2flive",
        b"/\xff\xfe", b"/%ff%00", b"/METRICS",
    ],
)  # fmt: skip
def test_a_path_that_is_none_of_them_is_refused(path: bytes) -> None:
    with pytest.raises(UnknownRoute):
        parse_path(path)


@on_uvloop
async def test_health_and_metadata_say_what_is_served(obedient: ServedVersion) -> None:
    index = (ModelState("obedient", "1", "READY"), ModelState("broken", "1", "UNAVAILABLE", "no file"))
    async with serving() as gateway:
        with await gateway.connect() as client:
            assert (await client.ask(get("/v2/health/ready"))).status == 503
            assert (await client.ask(get("/ping"))).status == 503
            assert (await client.ask(get("/v2/health/live"))).json() == {"live": True}
            await gateway.serve(("obedient", obedient), index=index)
            assert (await client.ask(get("/v2/health/ready"))).json() == {"ready": True}
            assert (await client.ask(get("/ping"))).status == 200
            assert (await client.ask(get("/v2/models"))).json() == {"models": ["obedient"]}
            server = (await client.ask(get("/v2"))).json()
            assert server["name"] == "hyperion"
            assert "binary_tensor_data" in server["extensions"]
            model = (await client.ask(get("/v2/models/obedient/versions/1"))).json()
            assert (model["name"], model["versions"], model["platform"]) == ("obedient", ["1"], "python")
            assert model["inputs"] == [{"name": "command", "datatype": "BYTES", "shape": [-1, 1]}]
            ready = await client.ask(get("/v2/models/obedient/ready"))
            assert (ready.status, ready.json()) == (200, {"name": "obedient", "ready": True})
            assert (await client.ask(get("/v1/models/obedient"))).json() == {"name": "obedient", "ready": True}
            assert (await client.ask(get("/v2/models/other/ready"))).status == 404
            rows = (await client.ask(request(b"", "/v2/repository/index"))).json()
            assert [row["name"] for row in rows] == ["obedient", "broken"]
            rows = (await client.ask(request(b'{"ready": true}', "/v2/repository/index"))).json()
            assert [row["name"] for row in rows] == ["obedient"]


@on_uvloop
async def test_callers_are_told_to_come_back_before_it_is_known_what_is_served(obedient: ServedVersion) -> None:
    async with serving() as gateway:
        with await gateway.connect() as client:
            for path in ("/v2/models/obedient/infer", "/v1/models/obedient:predict", "/invocations"):
                answer = await client.ask(infer("x", path=path))
                assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert (await client.ask(get("/v2/models/obedient"))).status == 503
            await gateway.serve(("obedient", obedient))
            assert (await client.ask(infer("x"))).status == 200
            assert (await client.ask(infer("x", path="/v2/models/other/infer"))).status == 404


@on_uvloop
async def test_a_model_that_is_not_there_is_told_from_one_that_loads_and_one_that_was_refused(
    obedient: ServedVersion,
) -> None:
    index = (ModelState("slow", "1", "LOADING"), ModelState("bad", "1", "UNAVAILABLE", "the file is broken"))
    async with serving() as gateway:
        await gateway.serve(("obedient", obedient), index=index)
        with await gateway.connect() as client:
            answer = await client.ask(infer("x", path="/v2/models/slow/infer"))
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert (await client.ask(get("/v2/models/slow/ready"))).status == 503
            answer = await client.ask(infer("x", path="/v2/models/bad/infer"))
            assert (answer.status, answer.error) == (404, 'model "bad" is not loaded: the file is broken')
            assert (await client.ask(infer("x", path="/v2/models/none/infer"))).status == 404
            answer = await client.ask(infer("x", path="/v2/models/obedient/versions/7/infer"))
            assert (answer.status, answer.error) == (404, 'model "obedient" has no version "7"; it has 1')


@on_uvloop
async def test_a_replica_that_is_not_connected_makes_its_model_unready(obedient: ServedVersion) -> None:
    nowhere = structs.replace(obedient, replicas=(structs.replace(obedient.replicas[0], socket="/nowhere"),))
    async with serving(("obedient", obedient)) as gateway:
        snapshot_models = [("obedient", obedient), ("lost", nowhere)]
        await gateway.apply(*snapshot_models)
        with await gateway.connect() as client:
            answer = await client.ask(get("/v2/models/lost/ready"))
            assert (answer.status, answer.json()) == (503, {"name": "lost", "ready": False})
            assert (await client.ask(get("/v2/health/ready"))).status == 503
            assert (await client.ask(infer("x"))).status == 200
            answer = await client.ask(infer("x", path="/v2/models/lost/infer", x_request_timeout_ms=30))
            assert answer.status == 504


@on_uvloop
async def test_every_way_of_asking_gets_the_answer_in_its_form(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            answer = await client.ask(request(b'{"instances": ["a", "b"]}', "/v1/models/obedient:predict"))
            assert [row["said"] for row in answer.json()["predictions"]] == [["a"], ["b"]]
            answer = await client.ask(request(b'{"inputs": ["a"]}', "/invocations", content_type="application/json"))
            assert answer.status == 200
            answer = await client.ask(request(b'{"command": "a"}', "/v2/models/obedient/generate"))
            assert (answer.json()["said"], answer.json()["model_name"]) == ("a", "obedient")
            outputs = [{"name": "said", "parameters": {"binary_data": True}}]
            body = json.dumps(
                {"inputs": json.loads(infer("a").partition(b"\r\n\r\n")[2])["inputs"], "outputs": outputs}
            )
            answer = await client.ask(request(body.encode(), "/v2/models/obedient/infer"))
            length = int(answer.headers["inference-header-content-length"])
            assert answer.headers["content-type"] == "application/octet-stream"
            assert answer.body[length:] == b"\x01\x00\x00\x00a"
            binary = (
                b'{"inputs":[{"name":"command","shape":[1,1],"datatype":"BYTES","parameters":{"binary_data_size":5}}]}'
            )
            data = request(binary + b"\x01\x00\x00\x00b", inference_header_content_length=len(binary))
            assert (await client.ask(data)).said == ["b"]
            data = request(binary + b"\x01\x00\x00\x00b", inference_header_content_length="many")
            assert (await client.ask(data)).status == 400
            data = request(binary + b"\x01\x00\x00\x00b", inference_header_content_length=10_000)
            assert (await client.ask(data)).status == 400


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (get("/v2/models/obedient/infer"), 405, "use POST"),
        (request(b"{}", "/v2/models"), 405, "use GET"),
        (request(b"{}", "/v2/models", "DELETE"), 405, "DELETE is not allowed"),
        (request(b"{}", "/nothing"), 404, 'no route "/nothing"'),
        (request(b"not json"), 400, ""),
        (request(b"{}"), 400, ""),
        (infer("x", x_request_timeout_ms="soon"), 400, "x-request-timeout-ms"),
        (infer("x", x_request_timeout_ms=0), 400, "from 1 to"),
        (infer("x", x_hyperion_priority=10), 400, "from 0 to 9"),
        (infer("x").replace(b"[1, 1]", b"[0, 1]").replace(b'["x"]', b"[]   "), 422, "no rows"),
        (infer("x").replace(b"[1, 1]", b"[1]   "), 422, "expected BYTES [-1, 1], got BYTES [1]"),
        (infer("x").replace(b"[1, 1]", b"[]    "), 422, "scalar"),
        (infer("x").replace(b'"command"', b'"comment"'), 422, 'input "comment" is unknown; this model takes "command"'),
    ],
)
@on_uvloop
async def test_a_request_that_does_not_fit_is_told_why(
    obedient: ServedVersion, data: bytes, status: int, words: str
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            for _ in range(2):  # what was refused once is not remembered as good
                answer = await client.ask(data)
                assert answer.status == status, answer
                assert words in answer.error
            assert (await client.ask(infer("good"))).said == ["good"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v2/models/obedient/infer", "POST"),
        ("OPTIONS", "/v2/models/obedient/infer", "POST"),
        ("POST", "/v2/health/ready", "GET, HEAD"),
        ("PUT", "/v2/jobs/1", "GET, HEAD, DELETE"),
    ],
)
@on_uvloop
async def test_a_method_that_is_not_allowed_is_told_which_are(
    obedient: ServedVersion, method: str, path: str, allowed: str
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        answer = await gateway.ask(request(b"", path, method))
        assert (answer.status, answer.headers["allow"].upper()) == (405, allowed)


@pytest.mark.interpreted
@on_uvloop
async def test_a_bug_of_ours_costs_its_request_and_shows_only_an_id(
    obedient: ServedVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        monkeypatch.setattr(gateway.pipeline.listing, "models", lambda *_: 1 / 0)
        monkeypatch.setattr(gateway.routes, "_scrape", lambda: 1 / 0)
        with await gateway.connect() as client:
            for path in ("/v2/models", "/metrics"):
                answer = await client.ask(get(path, x_request_id="id-of-mine"))
                assert answer.status == 500
                assert answer.error == "an internal error; quote request id id-of-mine"
            assert (await client.ask(infer("good"))).said == ["good"]
        assert [event["error"] for event in gateway.events("request failed")] == [
            "ZeroDivisionError('division by zero')"
        ] * 2


@on_uvloop
async def test_models_are_loaded_and_unloaded_by_control_and_its_refusal_is_the_answer(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            load = request(b'{"parameters": {"a": "b"}}', "/v2/repository/models/m/load")
            unload = request(b"", "/v2/repository/models/m/unload")
            assert (await client.ask(load)).status == 200
            assert (await client.ask(unload)).json() == {}
            assert gateway.changes == [("m", {"a": "b"}), ("m", None)]
            gateway.change_error = ModelRefused("the file is broken")
            answer = await client.ask(load)
            assert (answer.status, answer.error) == (400, "the file is broken")
            gateway.change_error = ZeroDivisionError()
            assert (await client.ask(unload)).status == 500


@on_uvloop
async def test_invocations_need_a_model_of_which_there_is_only_one(obedient: ServedVersion) -> None:
    async with serving(("one", obedient), ("two", obedient)) as gateway:
        answer = await gateway.ask(request(b'{"inputs": ["a"]}', "/invocations", content_type="application/json"))
        assert (answer.status, "2 are served" in answer.error) == (404, True)


@on_uvloop
async def test_names_that_callers_make_up_do_not_become_series(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            for number in range(20):
                await client.ask(infer("x", path=f"/v2/models/m{number}/infer"))
                await client.ask(infer("x", path=f"/v2/models/obedient/versions/{number + 2}/infer"))
                await client.ask(get(f"/v2/models/m{number}"))
                await client.ask(get(f"/nowhere/{number}"))
            text = (await client.ask(get("/metrics"))).body.decode()
        assert len([line for line in text.splitlines() if line.startswith("hyperion_requests_total{")]) <= 3


@on_uvloop
async def test_more_paths_than_are_remembered_are_answered_all_the_same(
    obedient: ServedVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperion.gateway.http.routes.MAX_TARGETS", 3)
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            for number in range(10):
                answer = await client.ask(get(f"/v2/health/live?{number}"))
                assert answer.status == 200
