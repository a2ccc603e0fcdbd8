"""Drift: bins from samples, evidence and size together, quality in pairs, and the sample ratio."""

from math import inf, nan

import numpy as np
import pytest

from hyperion.policy.evidence import Toss
from hyperion.policy.release.drift import BinCounts, judge_drift, make_bins, measure_distance
from hyperion.policy.release.quality import judge_quality, log_better_quality, log_worse_quality
from hyperion.policy.release.ratio import judge_ratio
from hyperion.policy.release.rollout import Labelled
from hyperion.schema.release import OutputSample

FLAT = np.full(10, 0.1)
SHIFTED = np.array([0.02] * 5 + [0.18] * 5)


def drawn(seed: int, canary: int, control: int, new: np.ndarray, share: float = 0.05) -> BinCounts:
    rng = np.random.default_rng(seed)
    mine, other = rng.multinomial(canary, new), rng.multinomial(control, FLAT)
    return BinCounts(share, tuple(map(int, mine)), tuple(map(int, other)))


@pytest.mark.parametrize("seed", range(20))
def test_equal_predictions_never_fail_and_pass_with_enough_of_them(seed: int) -> None:
    assert judge_drift([drawn(seed, 50, 950, FLAT)], 0.1, 200.0).verdict == "running"
    assert judge_drift([drawn(seed, 6_000, 114_000, FLAT)], 0.1, 200.0).verdict == "pass"


@pytest.mark.parametrize("seed", range(20))
def test_shifted_predictions_fail_within_a_few_hundred(seed: int) -> None:
    assert judge_drift([drawn(seed, 200, 3_800, SHIFTED)], 0.1, 200.0).verdict == "fail"


def test_a_provable_but_small_difference_does_not_fail() -> None:
    new = np.array([0.09] * 5 + [0.11] * 5)
    found = judge_drift([drawn(1, 100_000, 100_000, new, 0.5)], 0.1, 200.0)
    assert found.e_value > found.threshold
    assert found.verdict == "pass"


def test_the_hour_is_no_drift_where_both_versions_see_it() -> None:
    """Other predictions in the epoch in which the canary gets more: alike in each, unlike in the sum."""
    morning = BinCounts(0.05, (50, 0), (950, 0))
    evening = BinCounts(0.5, (0, 500), (0, 500))
    found = measure_distance([morning, evening])
    assert found is not None
    assert found.measured == pytest.approx(0.0)


def test_without_predictions_of_both_there_is_no_verdict_and_other_bins_are_an_error() -> None:
    assert judge_drift([BinCounts(0.5, (5, 5), (0, 0))], 0.1, 200.0).detail == "no predictions of both versions yet"
    assert judge_drift([], 0.1, 200.0).verdict == "running"
    assert judge_drift([BinCounts(0.5, (5, 5), (5, 5, 5))], 0.1, 200.0).verdict == "error"


def test_bins_need_sixty_four_values_and_leave_out_what_is_no_number() -> None:
    assert make_bins(OutputSample("e", 1, "y", "number", (1.0,) * 63 + (nan, inf))) is None
    assert make_bins(OutputSample("e", 1, "y", "class", (1.0,) * 63 + (nan,))) is None
    constant = make_bins(OutputSample("e", 1, "y", "number", (1.0,) * 64))
    assert constant is not None
    assert constant.edges == (1.0,)
    labels = make_bins(OutputSample("e", 1, "y", "label", labels=("b",) * 40 + ("a",) * 40))
    assert labels is not None
    assert (labels.labels, labels.argmax) == (("a", "b"), False)


def test_quality_fails_passes_or_waits() -> None:
    assert judge_quality(Labelled((0, 100, 60)), 0.01, 100.0).verdict == "fail"
    assert judge_quality(Labelled((5, 20_000, 5)), 0.01, 100.0).verdict == "pass"
    assert judge_quality(Labelled((5, 100, 5)), 0.01, 100.0).verdict == "running"
    assert judge_quality(Labelled((5, 100)), 0.01, 100.0).verdict == "error"
    assert judge_quality(Labelled((5, -1, 3)), 0.01, 100.0).verdict == "error"
    assert judge_quality(Labelled((0, 0, 9_999)), 1.0, 100.0).verdict == "running"


def test_labels_that_no_prediction_equals_are_no_proof_that_two_versions_are_alike() -> None:
    strange = judge_quality(Labelled((0, 20_000, 0), both_wrong=20_000), 0.01, 100.0)
    assert (strange.verdict, strange.bad_canary) == ("running", 0)
    assert "none of 20000 labels" in strange.detail
    assert judge_quality(Labelled((0, 20_000, 0), both_wrong=19_999), 0.01, 100.0).verdict == "pass"


@pytest.mark.parametrize(("accuracy", "halts"), [(0.9, False), (0.85, True)])
def test_looked_at_after_each_pair_one_per_cent_at_most_of_the_shadows_at_the_margin_are_halted(
    accuracy: float, halts: bool
) -> None:
    """The control is right in 91 % of the pairs, the shadow, independently of it, 1 or 6 points less often."""
    rng = np.random.default_rng(5)
    runs, pairs, margin, threshold = 150, 3_000, 0.01, 100.0
    halted = 0
    for _ in range(runs):
        losses = (rng.random(pairs) < 0.91).astype(int) - (rng.random(pairs) < accuracy).astype(int)
        worse, better = np.cumsum(losses == 1), np.cumsum(losses == -1)
        looks = np.flatnonzero(losses == 1)[::5]
        counts = [(int(better[i]), int(i + 1 - better[i] - worse[i]), int(worse[i])) for i in looks]
        halted += any(judge_quality(Labelled(one), margin, threshold).verdict == "fail" for one in counts)
    assert halted > 0.5 * runs if halts else halted <= 0.02 * runs


def test_quality_in_finer_steps_says_the_same() -> None:
    assert log_worse_quality(Labelled((3, 0, 50, 0, 40)), 0.05) == log_worse_quality(Labelled((3, 50, 40)), 0.05)
    assert log_better_quality(Labelled((40, 50, 3)), 0.0) > 5


def test_the_sample_ratio_waits_doubts_and_fails() -> None:
    assert judge_ratio([]).detail == "no requests of the new version yet"
    assert judge_ratio([Toss(9, 9, 0.5)]).detail == "no requests of the old version yet"
    assert judge_ratio([Toss(86, 1_000, 0.05)]).verdict == "inconclusive"
    assert judge_ratio([Toss(0, 1_000, 0.5)]).verdict == "fail"
    sticky = judge_ratio([Toss(900, 1_000, 0.5)], sticky=True)
    assert sticky.verdict == "pass"
    assert "not tested" in sticky.detail
