"""Pairs of requests built to be taken for each other, through the cache: `python -m tests.e2e.cache_collisions`.

Each pair is the same bytes as something else: other shapes, datatypes, names, tenants, requested outputs, parameters,
models, or nothing else at all. The "answer" to a request says what was asked, so that a wrong one shows. Goes through
`ResponseCache.key`, `get`, `put` and the front as a gateway does; ends with 1 at the first wrong answer. Options:
`--pairs 1000000 --seed 1`.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from hyperion.gateway.cache.answers import BYPASSED, ResponseCache
from hyperion.gateway.cache.memory import CacheMemory
from hyperion.schema.call import InferenceCall, Tensor
from hyperion.schema.protect import Cache

SHAPES = ((8,), (1, 8), (8, 1), (2, 4), (4, 2), (1, 1, 8), (2, 2, 2), (1, 2, 4))
DATATYPES = ("UINT8", "INT8", "BOOL", "UINT16", "FP16", "BF16", "INT32", "FP32", "FP64", "INT64", "BYTES")
NAMES = ("x", "y", "xy", "x:", "", "x\0", "é")
TENANTS = ("", "a", "b", "ab", "a:")
DIGESTS = ("sha256:" + "a" * 64, "sha256:" + "a" * 63 + "b", "", "a")
OUTPUTS: tuple[tuple[str, ...], ...] = ((), ("x",), ("y",), ("x", "y"), ("y", "x"), ("xy",))
VALUES = (1, True, "1", 1.0, 0, False, "0", 0.0, -0.0, None, "", "null", "true", 2**40, "x")
DATA = (bytes(8), b"\x01" + bytes(7), b"abcdefgh", b"\x04\0\0\0abcd")

Request = tuple[str, str, InferenceCall]


def make(draw: random.Random) -> Request:
    inputs = tuple([make_tensor(draw, name) for name in draw.sample(NAMES, draw.choice((1, 1, 1, 2)))])
    parameters = {name: draw.choice(VALUES) for name in draw.sample(NAMES, draw.choice((0, 0, 1, 2)))}
    call = InferenceCall("m", "", "", inputs, draw.choice(OUTPUTS), parameters)
    return draw.choice(TENANTS), draw.choice(DIGESTS), call


def make_tensor(draw: random.Random, name: str) -> Tensor:
    data = draw.choice(DATA)
    return Tensor(name, draw.choice(DATATYPES), draw.choice(SHAPES), data if draw.random() < 0.8 else memoryview(data))


def twist(draw: random.Random, request: Request) -> Request:
    """The request with one thing changed, or none."""
    tenant, digest, call = request
    inputs, outputs, parameters = call.inputs, call.outputs, dict(call.parameters)
    first = inputs[0]
    change = draw.randrange(10)
    if change == 0:
        tenant = draw.choice(TENANTS)
    elif change == 1:
        digest = draw.choice(DIGESTS)
    elif change == 2:
        inputs = (Tensor(first.name, first.datatype, draw.choice(SHAPES), first.data), *inputs[1:])
    elif change == 3:
        inputs = (Tensor(first.name, draw.choice(DATATYPES), first.shape, first.data), *inputs[1:])
    elif change == 4:
        free = [name for name in NAMES if name not in [one.name for one in inputs]]
        inputs = (Tensor(draw.choice(free), first.datatype, first.shape, first.data), *inputs[1:])
    elif change == 5:
        outputs = draw.choice(OUTPUTS)
    elif change == 6:
        parameters[draw.choice(NAMES)] = draw.choice(VALUES)
    elif change == 7 and parameters:
        name = draw.choice(list(parameters))
        parameters = {other: value for other, value in parameters.items() if other != name} | {"x": parameters[name]}
    elif change == 8:
        inputs = tuple(reversed(inputs))  # the same request
    return tenant, digest, InferenceCall("m", "1", "other", inputs, outputs, parameters, 3, 10**9)


def truth(request: Request) -> bytes:
    """All that the answer depends on, as text in which nothing can be taken for anything else."""
    tenant, digest, call = request
    inputs = sorted((one.name, one.datatype, one.shape, bytes(one.data)) for one in call.inputs)
    parameters = sorted((name, repr(value)) for name, value in call.parameters.items())
    return repr((tenant, digest, inputs, call.outputs, parameters)).encode()


def ask(cache: ResponseCache, request: Request, now_ns: int) -> tuple[bytes, bool]:
    """What the caller is told, and if it came from the cache."""
    tenant, digest, call = request
    body = truth(request)  # stands for the bytes on the wire
    made = cache.front.find(tenant, digest, "1", None, b"", body, now_ns)
    if made is not None:
        return made.body, True
    key = cache.key(tenant, digest, call, now_ns)
    if key == BYPASSED:
        return body, False
    entry = cache.get(key, now_ns)
    if entry is not None:
        said = bytes(entry.outputs[0].data)
        cache.front.keep(entry, tenant, digest, "1", None, b"", body, 1, b"", said, now_ns)
        return said, True
    cache.put(key, (Tensor("said", "UINT8", (len(body),), body),), "1", digest, now_ns)
    return body, False


def run(pairs: int, seed: int, say: Callable[[str], Any] = print) -> int:
    """The number of wrong answers, at most one."""
    draw = random.Random(seed)
    cache = ResponseCache(Cache(ttl_s=60.0, max_mb=64), CacheMemory(), draw.random)
    began_s, hits, same = time.perf_counter(), 0, 0
    for number in range(pairs):
        first = make(draw)
        second = twist(draw, first)
        same += truth(first) == truth(second)
        now_ns = number * 10_000_000  # few enough a second that all are looked up
        for request in (first, second, first):
            said, hit = ask(cache, request, now_ns)
            hits += hit
            if said != truth(request):
                say(f"pair {number}: {truth(request)!r} was answered as {said!r}")
                return 1
    took_s = time.perf_counter() - began_s
    say(f"{pairs} pairs ({same} of them the same request), {hits} hits of {3 * pairs}, 0 wrong answers, {took_s:.0f} s")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    return run(given.pairs, given.seed)


if __name__ == "__main__":
    sys.exit(main())
