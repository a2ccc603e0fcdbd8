"""A cascade that was fitted loses no more than was allowed, on rows that it has not seen."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperion.policy.graph.cascade import find_unsure_in_array
from hyperion.policy.graph.cascade_fit import (
    COLDEST,
    HOTTEST,
    NoFit,
    bound_share,
    fit_cascade,
    fit_temperature,
    saved_share,
)


def draw_rows(random: np.random.Generator, count: int, temperature: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of a cheap model that is overconfident by `temperature`, the truth, and whether a dear model knows it."""
    logits = random.normal(0, 3, (count, 4))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    truth = np.array([random.choice(4, p=row / row.sum()) for row in powers])
    return logits * temperature, truth, random.random(count) < 0.98


@given(st.integers(0, 1000), st.sampled_from([0.005, 0.02, 0.05]))
@settings(max_examples=15, deadline=None)
def test_what_is_lost_on_other_rows_is_within_the_bound(seed: int, max_loss: float) -> None:
    """The bound fails for one draw of calibration rows in ten; 15 draws with a twice as large one nearly never do."""
    random = np.random.default_rng(seed)
    scores, truth, dear = draw_rows(random, 1500, 2.0)
    fit = fit_cascade(scores, truth, dear, max_loss)
    assert fit.loss_bound <= max_loss
    assert fit.dear - fit.cascade <= fit.harmed / fit.rows + 1e-12
    scores, truth, dear = draw_rows(random, 6000, 2.0)
    unsure = np.zeros(len(truth), bool)
    unsure[find_unsure_in_array(scores, fit.until)] = True
    cascade = np.where(unsure, dear, scores.argmax(axis=1) == truth).mean()
    assert dear.mean() - cascade <= 2 * max_loss
    assert abs(unsure.mean() - fit.escalated) < 0.1


@given(st.integers(0, 1000), st.floats(0.3, 5.0))
@settings(max_examples=15, deadline=None)
def test_the_temperature_is_found_again(seed: int, temperature: float) -> None:
    scores, truth, _ = draw_rows(np.random.default_rng(seed), 3000, temperature)
    assert fit_temperature(scores, truth) == pytest.approx(temperature, rel=0.15)


def test_a_temperature_has_bounds_and_rows_without_numbers_say_nothing() -> None:
    always = np.array([[0.1, 0.0], [math.nan, 0.0]])
    assert fit_temperature(always, np.array([0, 1])) == pytest.approx(COLDEST, rel=0.01)
    assert fit_temperature(always, np.array([1, 0])) == pytest.approx(HOTTEST, rel=0.01)


def test_a_threshold_keeps_out_the_harmed_row_that_is_one_too_many() -> None:
    scores = np.array([[0.9, 0.1]] * 990 + [[0.8, 0.2]] * 5 + [[0.7, 0.3]] * 5)
    truth = np.array([0] * 990 + [1] * 10)
    knows = np.ones(1000, bool)
    strict = fit_cascade(scores, truth, knows, 0.0025)
    assert (strict.harmed, strict.escalated, strict.cascade) == (0, pytest.approx(0.01), 1.0)
    assert strict.loss_bound == pytest.approx(1 - 0.1 ** (1 / 1000))
    loose = fit_cascade(scores, truth, knows, 0.012)
    assert (loose.harmed, loose.escalated) == (5, pytest.approx(0.005))
    everything = fit_cascade(scores, truth, knows, 0.03)
    assert (everything.harmed, everything.escalated) == (10, 0.0)
    helpless = fit_cascade(scores, truth, np.zeros(1000, bool), 0.0025)
    assert (helpless.harmed, helpless.escalated, helpless.cheap, helpless.dear) == (0, 0.0, 0.99, 0.0)


def test_rows_without_numbers_are_never_sure() -> None:
    scores = np.array([[0.9, 0.1]] * 1500 + [[math.nan, 0.1]] * 10)
    fit = fit_cascade(scores, np.zeros(1510, int), np.ones(1510, bool))
    assert find_unsure_in_array(scores, fit.until) == list(range(1500, 1510))


def test_a_model_that_is_wrong_when_it_is_entirely_sure_has_no_threshold() -> None:
    scores = np.array([[0.9, 0.1]] * 1497 + [[1.0, 0.0]] * 3)
    truth = np.array([0] * 1497 + [1] * 3)
    with pytest.raises(NoFit, match="wrong in 1 rows or more where it is entirely sure"):
        fit_cascade(scores, truth, np.ones(1500, bool))
    nearly = np.array([[0.9, 0.1]] * 1497 + [[1 - 1e-12, 1e-12]] * 3)
    truth = np.array([0, 0, 0, 0, 1] * 299 + [0] * 2 + [1] * 3)
    fit = fit_cascade(nearly, truth, truth == np.array([0] * 1497 + [1] * 3))
    assert (fit.until.confidence, fit.harmed, fit.escalated) == (1.0, 0, 1.0)


def test_too_few_rows_are_told_how_many_it_takes() -> None:
    scores = np.array([[0.9, 0.1]] * 1100)
    with pytest.raises(NoFit, match="takes 1151 rows"):
        fit_cascade(scores, np.zeros(1100, int), np.ones(1100, bool))


@given(st.integers(1, 400), st.data(), st.sampled_from([0.5, 0.9, 0.95]))
def test_the_bound_is_where_so_few_would_be_found_with_the_rest_of_the_level(
    rows: int, data: st.DataObject, level: float
) -> None:
    found = data.draw(st.integers(0, rows))
    share = bound_share(found, rows, level)
    assert found / rows <= share <= 1.0
    if found < rows:
        at_most = sum(math.comb(rows, n) * share**n * (1 - share) ** (rows - n) for n in range(found + 1))
        assert at_most == pytest.approx(1 - level, rel=1e-6)
        assert bound_share(found + 1, rows, level) > share


def test_a_cheap_model_that_costs_as_much_saves_nothing() -> None:
    assert saved_share(0.5, 1.0, 1.0) < 0 < saved_share(0.5, 1.0, 10.0)
