"""Where hostile requests come from: number n of a seed is always the same attack. Pure; run by `hostile`."""

from collections.abc import Callable

from tests.e2e import hostile_bodies as bodies
from tests.e2e import hostile_http as http
from tests.e2e import hostile_messages as messages
from tests.e2e.hostile_attack import Attack, Random

MAKERS: tuple[Callable[[Random], Attack], ...] = (
    bodies.wrong_shapes,
    bodies.wrong_values,
    bodies.wrong_members,
    bodies.not_a_number,
    bodies.deep_nesting,
    bodies.damaged_json,
    bodies.any_bytes,
    bodies.other_forms,
    bodies.odd_parameters,
    bodies.too_many,
    bodies.binary_lies,
    bodies.truncated_binary,
    bodies.text_that_is_none,
    bodies.compressed,
    http.huge_head,
    http.both_lengths,
    http.bad_chunks,
    http.many_chunks,
    http.damaged_http,
    http.odd_requests,
    http.odd_headers,
    http.pipelined,
    http.pipelined_and_gone,
    http.early_closer,
    http.slow_sender,
    http.stream_and_leave,
    messages.grpc_lies,
    messages.grpc_damage,
    messages.grpc_streams,
    messages.grpc_cancelled,
    messages.grpc_metadata,
)


def make_attack(seed: int, number: int) -> Attack:
    """Attack number `number` of that seed."""
    chance = Random(f"{seed}/{number}")
    make = chance.choice(MAKERS)
    attack = make(chance)
    return attack._replace(kind=make.__name__)
