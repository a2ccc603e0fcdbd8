"""Control is killed in the middle of what it writes, and nothing is lost, done twice or left half.

Samples; all points are in `python -m tests.e2e.crash_control all`, fifty leaders in `python -m tests.e2e.two_leaders`.
"""

import pytest

from tests.e2e.crash_pieces import Pieces
from tests.e2e.crash_tree import crash_tree
from tests.e2e.two_leaders import kill_leaders
from tests.services import needs_postgres

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SAMPLES = 2
WRITES = {"begin", "commit", "committed", "ledger.state", "rollout.put", "rollout.command", "rollout.done"}


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_a_control_that_is_killed_at_a_point_of_a_write_goes_on_as_if_it_had_lived(store: str) -> None:
    if store == "postgresql":
        needs_postgres()
    pieces = Pieces(store)
    points = pieces.enumerate_points()
    assert set(points) >= WRITES
    for sample in range(SAMPLES):
        at = (len(points) * (2 * sample + 1)) // (2 * SAMPLES)
        pieces.kill(at, f"{at} ({points[at]})")


def test_a_platform_whose_control_is_killed_in_its_writes_serves_every_request_and_promotes_once() -> None:
    kills = {"deploy 2": "committed 2", "undo": "commit 2"}
    seen = crash_tree("sqlite", kills, without=frozenset(("push 3", "deploy 3", "key")))
    assert (seen["problems"], seen["not_reached"]) == ([], [])
    assert seen["requests"] > 50


def test_of_two_platforms_on_one_database_one_leads_and_the_other_takes_over() -> None:
    needs_postgres()
    seen = kill_leaders(2, 0, takeover_s=30.0)  # how fast it is, the long version says
    assert seen["problems"] == []
    assert seen["leaders"] == 3
