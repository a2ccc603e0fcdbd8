"""What a cascade takes for a sure answer, row by row, however it is computed."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hyperion.policy.graph.cascade import find_unsure, find_unsure_in_array, is_sure, judge, judge_array
from hyperion.schema.protect import Until

SCORES = st.floats(-50, 50) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1.0])
ROWS = st.integers(1, 5).flatmap(
    lambda columns: st.lists(st.lists(SCORES, min_size=columns, max_size=columns), min_size=1, max_size=8)
)
UNTIL = st.builds(
    Until, st.floats(0.01, 1.0), st.floats(0.05, 20.0), st.lists(st.floats(0.0, 1.0), max_size=4).map(tuple)
)


@given(ROWS, UNTIL)
def test_many_rows_are_judged_as_few_are(rows: list[list[float]], until: Until) -> None:
    best, probability = judge_array(np.array(rows), until.temperature)
    for row, one, sure in zip(rows, best.tolist(), probability.tolist(), strict=True):
        expected = judge(row, until.temperature)
        assert sure == pytest.approx(expected[1], rel=1e-9, nan_ok=True)
        assert math.isnan(sure) or one == expected[0]
    close = [
        index
        for index, (one, sure) in enumerate(zip(best.tolist(), probability.tolist(), strict=True))
        if abs(sure - (until.thresholds[one] if one < len(until.thresholds) else until.confidence)) < 1e-9
    ]
    either = set(find_unsure(rows, until)) ^ set(find_unsure_in_array(np.array(rows), until))
    assert either <= set(close)  # the last bit of an exponential may be another one


@given(ROWS, UNTIL)
def test_a_row_is_judged_by_itself(rows: list[list[float]], until: Until) -> None:
    alone = [index for index, row in enumerate(rows) if find_unsure([row], until)]
    assert find_unsure(rows, until) == alone


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=6), st.floats(0.05, 20))
def test_probabilities_and_their_logits_are_judged_alike(logits: list[float], temperature: float) -> None:
    top = max(logits)
    powers = [math.exp(value - top) for value in logits]
    probabilities = [power / sum(powers) for power in powers]
    assume(min(probabilities) > 1e-25)
    assume(min(logits) < 0 or abs(sum(logits) - 1) > 2e-3)  # such logits are taken for probabilities themselves
    judged, again = judge(logits, temperature), judge(probabilities, temperature)
    assert judged[1] == pytest.approx(again[1], rel=1e-6)
    assert 1 / len(logits) <= judged[1] * (1 + 1e-9) <= 1 + 1e-6


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=6), st.floats(0.05, 10), st.floats(1.0, 2.0))
def test_a_higher_temperature_is_never_surer(scores: list[float], temperature: float, factor: float) -> None:
    assert judge(scores, temperature * factor)[1] <= judge(scores, temperature)[1] * (1 + 1e-9) or (
        abs(sum(scores) - 1) < 1e-2  # stated probabilities count as they are
    )


JUDGED = [
    ([0.2, 0.8], 1.0, 1, 0.8),
    ([0.8], 1.0, 1, 0.8),  # one score is that of the second class
    ([0.2], 1.0, 0, 0.8),
    ([3.0], 1.0, 1, 1 / (1 + math.exp(-3))),
    ([-3.0], 1.0, 0, 1 / (1 + math.exp(-3))),
    ([1.0, 0.0], 2.0, 0, 1.0),
    ([0.5, 0.5, 0.1], 1.0, 0, 1 / (2 + math.exp(-0.4))),  # no probabilities: they add up to more
    ([math.nan, 1.0], 1.0, None, math.nan),
    ([math.inf, 1.0], 1.0, 0, math.nan),
    ([1e308, -1e308], 0.1, 0, 1.0),
]


@pytest.mark.parametrize(("scores", "temperature", "best", "probability"), JUDGED)
def test_scores_speak_for_a_class(
    scores: list[float], temperature: float, best: int | None, probability: float
) -> None:
    judged = judge(scores, temperature)
    assert judged[1] == pytest.approx(probability, nan_ok=True)
    assert best is None or judged[0] == best
    classes, probabilities = judge_array(np.array([scores]), temperature)
    assert probabilities[0] == pytest.approx(probability, nan_ok=True)
    assert best is None or classes[0] == best


def test_thresholds_by_class_win_and_a_class_without_one_has_the_common_one() -> None:
    until = Until(0.9, thresholds=(0.5,))
    assert [is_sure(until, 0, 0.6), is_sure(until, 1, 0.6), is_sure(until, 1, 0.9)] == [True, False, True]
    assert not is_sure(Until(0.0001), 0, math.nan)
    rows = [[0.6, 0.4], [0.4, 0.6]]
    assert find_unsure(rows, until) == find_unsure_in_array(np.array(rows), until) == [1]
