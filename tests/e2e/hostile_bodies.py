"""Hostile bodies: JSON, V1, generate, binary and compressed. Run by `hostile_bytes`."""

import gzip
import json
import struct
import zlib
from typing import Any

from tests.e2e.hostile_attack import (
    DATATYPES,
    EVERYTHING,
    ODD_NUMBERS,
    SHOUT,
    SUMS,
    Attack,
    Random,
    damage,
    post,
    sums_body,
    tensor,
)


def odd_value(chance: Random, depth: int = 3) -> Any:
    """Any JSON value, rather an odd one."""
    roll = chance.random()
    if roll < 0.35:
        return chance.choice(ODD_NUMBERS)
    if roll < 0.55:
        return chance.choice((None, True, False, "", "x" * chance.randrange(300), "\x00", "\ud800", "NaN", "é"))
    if roll < 0.8 and depth:
        return [odd_value(chance, depth - 1) for _ in range(chance.randrange(4))]
    if depth:
        return {
            chance.choice(("name", "data", "x", "")): odd_value(chance, depth - 1) for _ in range(chance.randrange(3))
        }
    return 0


def odd_shape(chance: Random) -> Any:
    if chance.random() < 0.2:
        return odd_value(chance)
    return [chance.choice(ODD_NUMBERS) for _ in range(chance.choice((0, 1, 2, 2, 2, 3, 9, 100)))]


def wrong_shapes(chance: Random) -> Attack:
    data = [chance.choice((0, 1, 1.5, -2)) for _ in range(chance.choice((0, 1, 2, 3, 4, 100)))]
    inputs = [tensor(name, odd_shape(chance), "FP32", data) for name in ("a", "b")]
    return Attack("", (post(SUMS, json.dumps({"inputs": inputs}).encode()),))


def wrong_values(chance: Random) -> Attack:
    datatype = chance.choice(DATATYPES)
    data = [odd_value(chance) for _ in range(3)]
    return Attack("", (post(EVERYTHING, json.dumps({"inputs": [tensor(datatype, [1, 3], datatype, data)]}).encode()),))


def wrong_members(chance: Random) -> Attack:
    body: dict[str, Any] = json.loads(sums_body([1, 2], [3, 4]))
    for _ in range(chance.randrange(1, 4)):
        where = chance.choice((body, *body["inputs"])) if isinstance(body.get("inputs"), list) else body
        if isinstance(where, dict):
            name = chance.choice(
                ("name", "shape", "datatype", "data", "parameters", "outputs", "inputs", "id", "extra")
            )
            where[name] = odd_value(chance)
    return Attack("", (post(SUMS, json.dumps(body).encode()),))


def not_a_number(chance: Random) -> Attack:
    word = chance.choice(
        (b"NaN", b"Infinity", b"-Infinity", b"nan", b"1e999", b"-1e999", b"0x10", b"1e-999", b"01", b".5", b"1.")
    )
    body = sums_body([1.25, 2], [3, 4]).replace(b"1.25", word)
    return Attack("", (post(SUMS, body),))


def deep_nesting(chance: Random) -> Attack:
    depth = chance.choice((10, 31, 32, 33, 100, 1000, 20_000, 200_000))
    opening, closing = chance.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")))
    nest = opening * depth + b"1" + closing * chance.choice((0, depth, depth, depth + 1))
    good = sums_body([1.25, 2], [3, 4])
    body = chance.choice((nest, good.replace(b"1.25", nest), good[:-1] + b', "extra": ' + nest + b"}"))
    return Attack("", (post(chance.choice((SUMS, "/v1/models/sums:predict", "/v2/models/sums/generate")), body),))


def damaged_json(chance: Random) -> Attack:
    body = damage(chance, sums_body([1, 2], [3, 4]))
    return Attack(
        "", (post(chance.choice((SUMS, EVERYTHING, "/v1/models/sums:predict", "/v2/models/shout/generate")), body),)
    )


def any_bytes(chance: Random) -> Attack:
    body = chance.randbytes(chance.choice((0, 1, 10, 1000, 50_000)))
    path = chance.choice(
        (SUMS, SHOUT, "/v1/models/sums:predict", "/v2/repository/index", "/v2/models/sums/generate_stream")
    )
    return Attack("", (post(path, body),))


def other_forms(chance: Random) -> Attack:
    """V1, generate and CSV bodies with odd values."""
    value = odd_value(chance)
    body = json.dumps(
        chance.choice((value, {"instances": value}, {"inputs": value}, {"instances": [value], "a": 1}, {"text": value}))
    )
    path = chance.choice(
        (
            "/v1/models/sums:predict",
            "/v2/models/sums/generate",
            "/v2/models/shout/generate",
            "/v2/models/shout/generate_stream",
        )
    )
    return Attack("", (post(path, body.encode()),))


def odd_parameters(chance: Random) -> Attack:
    names = (
        "priority",
        "timeout",
        "sequence_id",
        "binary_data_output",
        "binary_data_size",
        "classification",
        "x" * 2000,
    )
    body = json.loads(sums_body([1, 2], [3, 4]))
    parameters = {chance.choice(names): odd_value(chance) for _ in range(chance.randrange(1, 4))}
    if isinstance(parameters.get("timeout"), int | float) and 0 < parameters["timeout"] < 10**6:
        del parameters["timeout"]  # who wants his answer in a microsecond is rightly told 504
    where = chance.choice((body, body["inputs"][0], body.setdefault("outputs", [{"name": "sum"}])[0]))
    where["parameters"] = parameters
    return Attack("", (post(SUMS, json.dumps(body).encode()),))


def too_many(chance: Random) -> Attack:
    body = json.loads(sums_body([1, 2], [3, 4]))
    count = chance.choice((65, 1000, 5000))
    member = chance.choice(("inputs", "outputs", "parameters"))
    if member == "parameters":
        body["parameters"] = {f"p{number}": number for number in range(count)}
    else:
        body[member] = [tensor(f"a{number}", [1, 2], "FP32", [1, 2]) for number in range(count)]
    return Attack("", (post(SUMS, json.dumps(body).encode()),))


def binary_lies(chance: Random) -> Attack:
    datatype = chance.choice(DATATYPES)
    size = chance.choice((*ODD_NUMBERS, 12, 24))
    one = {"name": datatype, "shape": odd_shape(chance), "datatype": datatype, "parameters": {"binary_data_size": size}}
    text = json.dumps({"inputs": [one]}).encode()
    length = chance.choice((len(text), len(text), 0, 1, len(text) + 1, 10**9, "x", -1, ""))
    data = chance.randbytes(chance.choice((0, 1, 12, 13, 5000)))
    return Attack("", (post(EVERYTHING, text + data, f"inference-header-content-length: {length}"),))


def truncated_binary(chance: Random) -> Attack:
    elements = b"".join(struct.pack("<I", chance.choice((3, 3, 4, 2**31, 2**32 - 1))) + b"abc" for _ in range(3))
    elements = elements[: chance.choice((21, 20, 7, 3, 0))] + b"x" * chance.randrange(3)
    one = {"name": "BYTES", "shape": [1, 3], "datatype": "BYTES", "parameters": {"binary_data_size": len(elements)}}
    text = json.dumps({"inputs": [one]}).encode()
    return Attack("", (post(EVERYTHING, text + elements, f"inference-header-content-length: {len(text)}"),))


def text_that_is_none(chance: Random) -> Attack:
    """Which the model, and nobody before it, refuses."""
    element = struct.pack("<I", 4) + chance.choice((b"\xff\xfe\x00\x01", b"good", b"\xc3\x28ab", b"\xed\xa0\x80a"))
    one = {"name": "text", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": 8}}
    text = json.dumps({"inputs": [one]}).encode()
    return Attack("", (post(SHOUT, text + element, f"inference-header-content-length: {len(text)}"),))


def compressed(chance: Random) -> Attack:
    body = chance.choice((sums_body([1, 2], [3, 4]), b" " * 3_000_000, b"[" * 1_000_000, chance.randbytes(100)))
    packed, name = chance.choice(
        ((gzip.compress(body, 1, mtime=0), "gzip"), (zlib.compress(body, 1), "deflate"), (body, "gzip"), (body, "br"))
    )
    if chance.random() < 0.5:
        packed = damage(chance, packed)
    return Attack("", (post(SUMS, packed, f"content-encoding: {name}"),))
