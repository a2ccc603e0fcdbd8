"""Ratios come from pairs, and their interval says how sure they are."""

import numpy as np
import pytest

from bench.split_cost import bucket_shares
from bench.stats import median_ratio


def test_drift_that_hits_both_sides_alike_leaves_the_ratio_alone() -> None:
    drift = np.linspace(1, 3, 10)
    ratio = median_ratio(2 * drift, drift)
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((2, 2, 2))


def test_the_interval_covers_the_true_ratio_about_as_often_as_it_claims() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        noise = rng.lognormal(0, 0.2, (2, 12))
        ratio = median_ratio(1.5 * noise[0], noise[1], seed=seed)
        hits += ratio.low <= 1.5 <= ratio.high
    assert hits >= 180


def test_a_profile_is_divided_by_the_innermost_frame_that_means_something() -> None:
    raw = (
        "main (x.py:1);parse_infer (hyperion/wire/oip/json.py:9) 30\n"
        "main (x.py:1);run (onnxruntime/capi/onnxruntime_inference_collection.py:2) 50\n"
        "main (x.py:1);idle (x.py:3) 20"
    )
    assert bucket_shares(raw) == {"parse": 0.3, "copy": 0.0, "compute": 0.5, "sockets": 0.0, "other": 0.2}
