"""Lists of models name to a caller what it may ask, and what is said of one model is for those who may ask it."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from hyperion.schema.protect import Access, Directory, Protection
from hyperion.schema.snapshot import ModelState, ServedModel, ServedVersion, Snapshot
from tests.gateway.serving import Serving, get, infer, on_uvloop, request, serving
from tests.gateway.test_identity import SECRET, bearer, key

ACME, OTHER, READER = SECRET, "hyp_o", "hyp_r"
KEYS = Directory(keys=(key(), key(OTHER, "other"), key(READER, "acme", 0.0, "read")))
OF_ACME, OPEN = Access(tenants=("acme",)), Access(anonymous=True)
RULES: Mapping[str, Access | None] = {"acmes": OF_ACME, "open": OPEN, "plain": None}
INDEX = (
    *(ModelState(name, "1", "READY") for name in RULES),
    ModelState("coming", "1", "LOADING", "a reason", OF_ACME),
    ModelState("gone", "1", "UNAVAILABLE", "a reason"),
)


async def serve(gateway: Serving, version: ServedVersion, directory: Directory = KEYS) -> None:
    served = [ServedModel(name, "1", (version,), protection=Protection(access=rule)) for name, rule in RULES.items()]
    await gateway.router.apply(Snapshot(1, tuple(served), INDEX, directory))
    for name in RULES:
        assert await gateway.pool(name).wait_connected(20)


async def listed(gateway: Serving, **headers: Any) -> list[set[str]]:
    """By each list there is."""
    lists = []
    for path in ("/v2/models", "/v1/models"):
        answer = await gateway.ask(get(path, **headers))
        lists.append(set(answer.json()["models"]) if answer.status == 200 else {str(answer.status)})
    answer = await gateway.ask(request(b"", "/v2/repository/index", **headers))
    lists.append({row["name"] for row in answer.json()} if answer.status == 200 else {str(answer.status)})
    return lists


@pytest.mark.parametrize("required", [True, False])
@on_uvloop
async def test_lists_name_what_their_reader_may_ask(obedient: ServedVersion, required: bool) -> None:
    async with serving(require_auth=required) as gateway:
        await serve(gateway, obedient)
        everything = [set(RULES)] * 2 + [{row.name for row in INDEX}]
        assert await listed(gateway, **bearer(ACME)) == everything
        assert await listed(gateway, **bearer(OTHER)) == [{"open", "plain"}] * 2 + [{"open", "plain", "gone"}]
        # Scopes are for asking: what has no rules may be known to all who have credentials.
        assert await listed(gateway, **bearer(READER)) == [{"plain"}] * 2 + [{"plain", "gone"}]
        assert await listed(gateway, **bearer("hyp_wrong")) == [{"401"}] * 3
        nobody = [{"401"}] * 3 if required else [{"open", "plain"}] * 2 + [{"open", "plain", "gone"}]
        assert await listed(gateway) == nobody


@on_uvloop
async def test_without_rules_lists_name_everything_whatever_is_shown(obedient: ServedVersion) -> None:
    async with serving() as gateway:
        await gateway.serve(("a", obedient), ("b", obedient))
        assert (await listed(gateway, authorization="Basic of-some-proxy"))[:2] == [{"a", "b"}] * 2


@on_uvloop
async def test_what_is_said_of_a_model_is_for_those_who_may_ask_it(obedient: ServedVersion) -> None:
    """As inference answers: neither versions nor reasons reach anybody else."""
    async with serving() as gateway:
        await serve(gateway, obedient)
        for who, versions, coming in ((ACME, 404, 503), (OTHER, 403, 404)):
            for path in ("/v2/models/acmes/versions/9", "/v2/models/coming"):
                told = await gateway.ask(get(path, **bearer(who)))
                asked = await gateway.ask(infer("a", path=f"{path}/infer", **bearer(who)))
                assert told.status == asked.status == (versions if "acmes" in path else coming), path
                assert told.error == asked.error
                hidden = json.dumps(told.json())
                assert who == ACME or not any(word in hidden for word in ("it has", "loading", "a reason"))
        assert (await gateway.ask(get("/v2/models/acmes", **bearer(OTHER)))).status == 403
        assert (await gateway.ask(get("/v2/models/acmes", **bearer(ACME)))).status == 200
