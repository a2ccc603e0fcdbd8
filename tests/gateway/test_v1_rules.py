"""Through a gateway: what an endpoint says of unknown inputs and nulls holds for V1 as it does for V2."""

import json
from typing import Any

import pytest

from hyperion.schema.protect import InputRule, Protection, SchemaRules
from hyperion.schema.snapshot import ServedVersion
from tests.gateway.serving import Answer, Serving, on_uvloop, request, serving


async def predict(gateway: Serving, *rows: Any) -> Answer:
    body = json.dumps({"instances": rows}).encode()
    return await gateway.ask(request(body, "/v1/models/obedient:predict"))


@pytest.mark.parametrize("rules", [None, SchemaRules()])
@on_uvloop
async def test_what_is_no_input_of_the_model_is_refused(obedient: ServedVersion, rules: SchemaRules | None) -> None:
    async with serving(("obedient", obedient)) as gateway:
        await gateway.protect(("obedient", obedient), protection=Protection(rules=rules))
        answer = await predict(gateway, {"command": ["a"], "note": 1}, {"command": ["b"]})
        assert answer.status == 422
        assert answer.json() == {"error": 'input "note" is unknown; this model takes "command"'}


@on_uvloop
async def test_what_is_no_input_of_the_model_is_ignored_where_the_endpoint_says_so(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        await gateway.protect(("obedient", obedient), protection=Protection(rules=SchemaRules("ignore")))
        answer = await predict(gateway, {"note": 1, "command": ["a"]}, {"command": ["b"], "more": {}})
        assert answer.status == 200
        assert [row["said"] for row in answer.json()["predictions"]] == [["a"], ["b"]]


@on_uvloop
async def test_a_null_is_refused_by_row_where_nothing_stands_for_it(obedient: ServedVersion) -> None:
    rules = SchemaRules(inputs={"command": InputRule(null="empty")})
    async with serving(("obedient", obedient)) as gateway:
        refused = await predict(gateway, ["a"], [None])
        assert refused.status == 422
        assert refused.json() == {"error": 'input "command": row 1, column 0 is null, expected a string (BYTES)'}
        await gateway.protect(("obedient", obedient), protection=Protection(rules=rules))
        answer = await predict(gateway, ["a"], [None])
        assert [row["said"] for row in answer.json()["predictions"]] == [["a"], [""]]
