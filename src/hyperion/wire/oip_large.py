"""Large V2 requests of numbers: the body parsed as a whole by simdjson, its arrays of numbers taken straight to bytes.

Half the time of decoding the envelope first, which reads all the text only to skip it. Called by `oip_json`, which
decodes again, exactly, whatever is refused here; nothing is accepted here that would be refused there.
"""

from typing import Any

import simdjson

from hyperion.schema.errors import HyperionError
from hyperion.wire.json_data import check_text_size
from hyperion.wire.json_large import NOT_PARSED, count_brackets, is_short_rowed, numbers, parse_document, rows_fit
from hyperion.wire.limits import WireLimits
from hyperion.wire.tensor import DATATYPES, Datatype, count_elements

LARGE_BODY_BYTES = 3072  # bench/micro_wire.py measures it: some 200 numbers


def parse_large_request(body: bytes, limits: WireLimits) -> tuple[dict[str, Any], list[bytes]] | None:
    """The request as plain objects without its inputs' data, and that data as little-endian bytes, input by input.

    None if the body is not one of numbers only, or not plainly right.
    """
    if b'"BYTES"' in body or b'"BOOL"' in body:
        return None
    try:
        document = parse_document(body)
        members = _members(document, "inputs")
        found = document["inputs"]
        members["inputs"] = [_members(one, "data") for one in found]
        data = _take_data(body, members, [one["data"] for one in found], limits)
    except (*NOT_PARSED, HyperionError):
        return None
    return None if data is None else (members, data)


def _members(document: Any, but: str) -> dict[str, Any]:
    """The members of an object as plain objects, all but one. Raises ValueError when one is given twice."""
    names = list(document.keys())
    if len(set(names)) != len(names):
        raise ValueError("a member is given twice")
    return {name: _plain(document[name]) for name in names if name != but}


def _plain(value: Any) -> Any:
    """A simdjson object or array as dict or list."""
    if isinstance(value, simdjson.Object):
        return value.as_dict()
    if isinstance(value, simdjson.Array):
        return value.as_list()
    return value


def _take_data(body: bytes, members: dict[str, Any], arrays: list[Any], limits: WireLimits) -> list[bytes] | None:
    """The bytes of each array; None unless each is flat or nested just as its shape, and holds what it should.

    Nests are checked down to their rows. That the rows hold no arrays follows from the count of brackets in the body:
    there is none beyond those of the arrays seen.
    """
    brackets = 1 + ("outputs" in members)
    data: list[bytes] = []
    for one, array in zip(members["inputs"], arrays, strict=True):
        datatype: Datatype = DATATYPES[one["datatype"]]
        shape = one["shape"]
        count = count_elements(shape, limits.max_rank, limits.max_elements)
        check_text_size(len(body), datatype, count, limits)
        brackets += 2
        if isinstance(array[0], simdjson.Array):
            if is_short_rowed(len(body), shape, count) or not rows_fit(array, shape):
                return None
            brackets += count_brackets(shape) - 1
        packed = numbers(array, datatype, count)
        if packed is None:
            return None
        data.append(packed)
    return data if body.count(b"[") == brackets else None
