"""How much one request to a graph of graphs sets off."""

import pytest

from hyperion.policy.graph.extent import MOST_DEPTH, MOST_STEPS, measure


def tower(height: int, width: int) -> dict[str, tuple[str, ...]]:
    """Graphs over one another, each of which calls the one below that many times; the lowest calls what is no graph."""
    return {f"g{level}": (f"g{level - 1}",) * width for level in range(1, height + 1)}


@pytest.mark.parametrize(
    ("height", "width", "steps", "too_much"),
    [
        (0, 1, 0, False),
        (1, 32, 32, False),
        (2, 15, 15 + 15 * 15, False),
        (2, 16, 16 + 16 * 16, True),
        (7, 2, 254, False),
        (8, 2, 510, True),
        (MOST_DEPTH, 1, MOST_DEPTH, False),
        (MOST_DEPTH + 1, 1, MOST_DEPTH + 1, True),
    ],
)
def test_steps_of_graphs_in_graphs_multiply(height: int, width: int, steps: int, too_much: bool) -> None:
    graphs = tower(height, width)
    found = measure(f"g{height}", lambda name: graphs.get(name, ()))
    assert (found.steps, found.depth, found.is_too_much) == (steps, height, too_much)
    assert found.names == {f"g{level}" for level in range(height + 1)}


def test_models_count_and_lead_nowhere() -> None:
    graphs = {"top": ("", "", "inner"), "inner": ("",)}
    found = measure("top", lambda name: graphs.get(name, ()))
    assert (found.steps, found.depth, found.names) == (4, 2, {"top", "inner"})


def test_a_circle_has_no_end_and_is_left_where_it_is_too_much() -> None:
    found = measure("a", {"a": ("b", "b"), "b": ("a", "a")}.__getitem__)
    assert found.is_too_much
    assert MOST_STEPS < found.steps < 10**6
