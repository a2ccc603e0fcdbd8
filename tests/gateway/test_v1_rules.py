"""Through a gateway: rules for unknown inputs and nulls hold for V1 as for V2, and those that fit no model are told."""

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


@on_uvloop
async def test_rules_that_do_not_fit_are_told_to_control_and_once_to_the_log(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        rules = SchemaRules(inputs={"nope": InputRule(max_length=1)})
        for _ in range(2):
            await gateway.protect(("obedient", obedient), protection=Protection(rules=rules))
        why = "schema.inputs.nope: the model has no such input; it takes command"
        assert gateway.router.rejected == {"obedient": why}
        assert [event["error"] for event in gateway.events("endpoint is not as its resource says")] == [why]
        answer = await predict(gateway, ["a"])
        assert (answer.status, why in answer.json()["error"]) == (503, True)
