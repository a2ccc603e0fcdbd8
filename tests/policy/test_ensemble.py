"""What several models say together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.graph.ensemble import average, present_share, stack, vote

WEIGHTS = st.floats(0.01, 100)
VALUES = st.lists(st.lists(st.integers(-3, 3), min_size=4, max_size=4), min_size=1, max_size=5)


@given(VALUES, st.data())
def test_an_average_is_within_what_the_members_say(values: list[list[int]], data: st.DataObject) -> None:
    weights = data.draw(st.lists(WEIGHTS, min_size=len(values), max_size=len(values)))
    arrays = [np.array(one, np.float32) for one in values]
    mean = average(arrays, weights)
    assert (mean >= np.min(arrays, axis=0) - 1e-6).all()
    assert (mean <= np.max(arrays, axis=0) + 1e-6).all()
    assert mean == pytest.approx(np.average(arrays, axis=0, weights=weights))


@given(VALUES, st.data())
def test_a_vote_has_the_most_weight_behind_it_and_of_a_tie_the_first_member_s(
    values: list[list[int]], data: st.DataObject
) -> None:
    weights = data.draw(st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=len(values), max_size=len(values)))
    chosen = vote([np.array(one) for one in values], weights)
    for place, winner in enumerate(chosen.tolist()):
        said = [one[place] for one in values]
        support = {value: sum(w for w, other in zip(weights, said, strict=True) if other == value) for value in said}
        assert support[winner] == max(support.values())
        assert winner == next(value for value in said if support[value] == max(support.values()))


def test_texts_are_voted_on() -> None:
    arrays = [np.array([one], dtype=object) for one in (b"de", b"fr", b"fr")]
    assert vote(arrays, [1.0, 1.0, 1.0]).tolist() == [b"fr"]
    assert vote(arrays, [3.0, 1.0, 1.0]).tolist() == [b"de"]


SCORED = [
    ([[0.6, 0.4]], [[0.75, 0.25]]),  # scores of classes: shares of the weight
    ([0.6, 0.4], [0.6, 0.4]),  # a number per row: as it is
    ([[0.6], [0.4]], [[0.6], [0.4]]),
]


@pytest.mark.parametrize(("first", "expected"), SCORED)
def test_scores_of_classes_are_votes_for_the_highest(first: list[object], expected: list[object]) -> None:
    others = np.flip(np.array(first), axis=-1) if len(np.array(first).shape) > 1 else np.array(first)
    arrays = [np.array(first), others] if np.array(first).shape[-1] > 1 else [np.array(first), np.array(first)]
    assert vote(arrays, [3.0, 1.0]).tolist() == expected


def test_a_stack_has_the_members_behind_the_rows() -> None:
    arrays = [np.zeros((5, 2)), np.ones((5, 2))]
    assert stack(arrays, True).shape == (5, 2, 2)
    assert stack(arrays, True)[:, 1].tolist() == np.ones((5, 2)).tolist()
    assert stack(arrays, False).shape == (2, 5, 2)


@given(st.lists(WEIGHTS, min_size=1, max_size=6), st.data())
def test_the_share_that_is_present_is_whole_when_all_are(weights: list[float], data: st.DataObject) -> None:
    there = weights[: data.draw(st.integers(0, len(weights)))]
    assert 0 <= present_share(there, weights) <= 1
    assert present_share(weights, weights) == 1
