"""Five hundred hostile requests (twenty thousand: `python -m tests.e2e.hostile`): none of them hurts the server."""

import asyncio

from tests.e2e.hostile import judge, storm
from tests.e2e.hostile_bytes import MAKERS, make_attack
from tests.e2e.served import Served

SEED = 20261121
GROWTH_KIB = 96 << 10  # what a few of the largest allowed bodies leave behind; a leak of each would be far more


def test_hostile_requests_get_no_error_of_ours_no_hang_and_no_memory(clients: Served) -> None:
    gateways = clients.pids("gateway")
    report = asyncio.run(storm(clients.url, clients.grpc, 500, SEED, gateways))
    assert report.wrongs == []
    assert sum(report.kinds.values()) == 500
    assert set(report.kinds) == {maker.__name__ for maker in MAKERS}
    assert {"200", "400", "413", "431"} <= set(report.statuses)
    assert clients.pids("gateway") == gateways
    assert report.end_kib - report.calm_kib < GROWTH_KIB


def test_an_attack_is_the_same_for_the_same_seed_and_number() -> None:
    attacks = [make_attack(1, number) for number in range(200)]
    assert attacks == [make_attack(1, number) for number in range(200)]
    assert attacks != [make_attack(2, number) for number in range(200)]


def test_the_judge_finds_what_must_not_be() -> None:
    assert judge(500, b'{"error":"model \\"m\\" raised ValueError for this request"}') == ""
    assert judge(400, b'{"error":"not JSON"}') == ""
    assert judge(500, b'{"error":"an internal error"}')
    assert judge(503, b"{}")
    assert judge(400, b'{"error":"Traceback (most recent call last)"}')
