"""Do both versions predict alike? Halts on evidence *and* size: provably different, and by more than is allowed. Pure.

Predictions are counted in bins that are frozen from the control's own. The test: within each bin, a prediction is the
canary's with a chance of its share ρ if both predict alike. The gambler bets per bin on the share seen so far (a
plug-in martingale, `evidence.log_either_way`); its closed form needs the counts of each epoch only, so nothing is kept
from look to look. The size: total variation between the canary's bins and the control's, weighted by epoch as the
canary's, so that neither the hour nor a step's share looks like drift.
"""

from collections.abc import Iterable, Sequence
from math import isfinite, log, pi, sqrt
from typing import Final

from msgspec import Struct

from hyperion.policy.evidence import e_value, log_either_way
from hyperion.policy.verdict import ERROR, FAIL, PASS, RUNNING, Evidence
from hyperion.schema.release import CATEGORIES_MAX, OutputBins, OutputSample

METRIC: Final = "drift"
SAMPLE_MIN: Final = 64
DECILES: Final = 10
PASS_LEVEL: Final = 0.05


class BinCounts(Struct, frozen=True):
    """Predictions by bin in one epoch, and the canary's share of the requests."""

    share: float
    canary: tuple[int, ...]
    control: tuple[int, ...]


class Distance(Struct, frozen=True):
    """Total variation as measured, how much of it is to be expected of noise alone, and how much more it may be."""

    measured: float
    noise: float
    radius: float
    predictions: int


def make_bins(sample: OutputSample) -> OutputBins | None:
    """Bins from a sample of the control's predictions: deciles of numbers, or the labels or classes by frequency.

    None for fewer than 64 values, or where all are alike and numbers (there is no scale to measure by).

    >>> make_bins(OutputSample("e", 1, "y", "number", tuple(float(i) for i in range(100)))).edges[:3]
    (10.0, 20.0, 30.0)
    >>> make_bins(OutputSample("e", 1, "y", "class", (1.0,) * 60 + (0.0,) * 40)).labels
    ('1', '0')
    """
    if sample.kind == "number":
        numbers = sorted(number for number in sample.numbers if isfinite(number))
        if len(numbers) < SAMPLE_MIN:
            return None
        deciles = {numbers[len(numbers) * part // DECILES] for part in range(1, DECILES)}
        return OutputBins(sample.output, edges=tuple(sorted(deciles)))
    argmax = sample.kind == "class"
    labels = [str(int(number)) for number in sample.numbers if isfinite(number)] if argmax else list(sample.labels)
    if len(labels) < SAMPLE_MIN:
        return None
    counts: dict[str, int] = {}
    for label in labels:
        counts[label] = counts.get(label, 0) + 1
    common = sorted(counts, key=lambda label: (-counts[label], label))[: CATEGORIES_MAX - 1]
    return OutputBins(sample.output, labels=tuple(common), argmax=argmax)


def log_drift(epochs: Iterable[BinCounts]) -> float:
    """The log of the E-value against "both versions' predictions have the same distribution".

    >>> log_drift([BinCounts(0.5, (50, 50), (50, 50))]) < 0 < 20 < log_drift([BinCounts(0.5, (90, 10), (10, 90))])
    True
    """
    return sum(
        log_either_way(canary, canary + control, epoch.share)
        for epoch in epochs
        for canary, control in zip(epoch.canary, epoch.control, strict=False)
    )


def measure_distance(epochs: Sequence[BinCounts]) -> Distance | None:
    """How far the two distributions lie apart; None where one of them has no predictions.

    The radius makes `measured + radius` an upper bound at all times but for 5 %: McDiarmid's inequality at each count n
    of predictions with a level of 0.05 · 6 / (π n)².

    >>> round(measure_distance([BinCounts(0.5, (90, 10), (10, 90))]).measured, 3)
    0.8
    """
    used = [epoch for epoch in epochs if sum(epoch.canary) and sum(epoch.control)]
    if not used:
        return None
    total = sum(sum(epoch.canary) for epoch in used)
    width = max(max(len(epoch.canary), len(epoch.control)) for epoch in used)
    canary, control = [0.0] * width, [0.0] * width
    spread = 1.0 / total
    for epoch in used:
        weight = sum(epoch.canary) / total
        size = sum(epoch.control)
        spread += weight * weight / size
        for index, count in enumerate(epoch.canary):
            canary[index] += count / total
        for index, count in enumerate(epoch.control):
            control[index] += weight * count / size
    measured = sum(abs(one - other) for one, other in zip(canary, control, strict=True)) / 2
    noise = sum(sqrt(2 / pi * share * max(1.0 - share, 0.0) * spread) for share in control) / 2
    seen = total + sum(sum(epoch.control) for epoch in used)
    radius = sqrt((log(pi * pi / 6 / PASS_LEVEL) + 2 * log(seen)) * spread / 2)
    return Distance(measured, noise, radius, total)


def judge_drift(epochs: Sequence[BinCounts], distance: float, threshold: float) -> Evidence:
    """`fail` where the evidence reaches `threshold` and the distance, less what noise explains, exceeds `distance`;
    `pass` where the upper bound of the distance is within it.

    >>> judge_drift([BinCounts(0.5, (900, 100), (100, 900))], 0.1, 200.0).verdict
    'fail'
    """
    if any(len(epoch.canary) != len(epoch.control) for epoch in epochs if sum(epoch.canary) and sum(epoch.control)):
        return Evidence(METRIC, verdict=ERROR, detail="the two versions' predictions were counted in other bins")
    found = measure_distance(epochs)
    if found is None:
        return Evidence(METRIC, threshold=threshold, detail="no predictions of both versions yet")
    log_e = log_drift(epochs)
    verdict = RUNNING
    if log_e >= log(threshold) and found.measured - found.noise > distance:
        verdict = FAIL
    elif found.measured + found.radius <= distance:
        verdict = PASS
    at_most = found.measured + found.radius
    detail = (
        f"{found.measured:.3f} apart over {found.predictions} predictions (at most {at_most:.3f}, {distance:g} may be)"
    )
    return Evidence(METRIC, 0, 0, e_value(log_e), threshold, verdict, detail)
