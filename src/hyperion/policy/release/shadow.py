"""May a version leave the shadow? By how its predictions differ, pair by pair, from the answers that were given. Pure.

A copy that the shadow could not answer counts as a pair that differs. Copies that were never made, as too many were
open, say nothing and are only reported.
"""

from collections.abc import Iterable, Sequence
from math import isfinite, log, sqrt
from typing import Final

import msgspec

from hyperion.policy.evidence import bound_above, e_value, log_over, log_under
from hyperion.policy.verdict import ERROR, FAIL, PASS, RUNNING, Evidence
from hyperion.schema.release import PairCounts

METRIC: Final = "disagreement"
PASS_LEVEL: Final = 0.05
_SUMS: Final = ("pairs", "flips", "disagreements", "abs_sum", "x", "y", "xx", "yy", "xy", "failed", "dropped")


def add_pairs(parts: Sequence[PairCounts]) -> PairCounts:
    """The pairs of all epochs as one.

    >>> add_pairs([PairCounts("e", 1, 3, abs_max=1.0), PairCounts("e", 2, 4, abs_max=0.5)]).pairs
    7
    """
    if not parts:
        return PairCounts("", 0)
    slices: dict[str, tuple[int, int]] = {}
    for part in parts:
        for name, (pairs, different) in part.slices.items():
            before = slices.get(name, (0, 0))
            slices[name] = (before[0] + pairs, before[1] + different)
    return msgspec.structs.replace(
        parts[-1],
        **{name: sum(getattr(part, name) for part in parts) for name in _SUMS},
        abs_max=max(part.abs_max for part in parts),
        slices=slices,
    )


def correlate(pairs: PairCounts) -> float | None:
    """Pearson's correlation of the first numbers of each pair; None where one of them never changes or is no number.

    >>> correlate(PairCounts("e", 1, pairs=3, x=6.0, y=12.0, xx=14.0, yy=56.0, xy=28.0))
    1.0
    """
    count = pairs.pairs
    if not count:
        return None
    spread = (pairs.xx - pairs.x * pairs.x / count) * (pairs.yy - pairs.y * pairs.y / count)
    if not (isfinite(spread) and spread > 0.0):
        return None
    found = (pairs.xy - pairs.x * pairs.y / count) / sqrt(spread)
    return max(-1.0, min(1.0, found)) if isfinite(found) else None


def judge_shadow(parts: Iterable[PairCounts], min_pairs: int, limit: float, threshold: float) -> Evidence:
    """`fail` where the share of pairs that differ is provably over `limit`, in all or in one slice; `pass` from
    `min_pairs` on where it is provably under it (at 5 %). A limit of 0 is broken by one pair, and passes without any.

    >>> judge_shadow([PairCounts("e", 1, pairs=600, disagreements=3)], 500, 0.02, 100.0).verdict
    'pass'
    >>> judge_shadow([PairCounts("e", 1, pairs=60, disagreements=9)], 500, 0.02, 100.0).verdict
    'fail'
    """
    pairs = add_pairs(tuple(parts))
    different, every = pairs.disagreements + pairs.failed, pairs.pairs + pairs.failed
    trouble = _trouble_of(pairs)
    if trouble:
        return Evidence(METRIC, different, 0, 0.0, threshold, ERROR, trouble)
    log_e = _log_over(different, every, limit)
    detail = _describe(pairs, different, every)
    if log_e >= log(threshold):
        return Evidence(METRIC, different, 0, e_value(log_e), threshold, FAIL, detail)
    for name, (count, differing) in sorted(pairs.slices.items()):
        log_slice = _log_over(differing, count, limit)
        if log_slice >= log(threshold * len(pairs.slices)):
            worst = f"{differing} of {count} pairs of the slice {name} differ; of all, {detail}"
            return Evidence(METRIC, different, 0, e_value(log_slice), threshold * len(pairs.slices), FAIL, worst)
    under = limit <= 0.0 or limit >= 1.0 or log_under(different, every, limit) >= -log(PASS_LEVEL)
    verdict = PASS if pairs.pairs >= max(min_pairs, 1) and under else RUNNING
    if pairs.pairs < min_pairs:
        detail += f" (at least {min_pairs} are wanted)"
    return Evidence(METRIC, different, 0, e_value(log_e), threshold, verdict, detail)


def _log_over(different: int, every: int, limit: float) -> float:
    if limit <= 0.0:
        return e_value(float("inf")) if different else 0.0
    return log_over(different, every, limit)


def _trouble_of(pairs: PairCounts) -> str:
    if min(pairs.pairs, pairs.disagreements, pairs.flips, pairs.failed, pairs.dropped) < 0:
        return "a count of pairs is negative"
    if pairs.disagreements > pairs.pairs or pairs.flips > pairs.pairs:
        return f"{pairs.disagreements} of {pairs.pairs} pairs differ: more than there are"
    if any(count < 0 or not 0 <= differing <= count for count, differing in pairs.slices.values()):
        return "more pairs of a slice differ than there are"
    if not (isfinite(pairs.abs_sum) and isfinite(pairs.abs_max)):
        return "differences between predictions are no numbers (NaN or infinity in an output)"
    return ""


def _describe(pairs: PairCounts, different: int, every: int) -> str:
    parts = [f"{different} of {every} pairs differ (at most {bound_above(different, every):.2%}, 95 %)"]
    parts += [f"{pairs.flips} flips"] if pairs.flips else []
    parts += [f"{pairs.failed} copies failed"] if pairs.failed else []
    parts += [f"{pairs.dropped} copies were not made"] if pairs.dropped else []
    if pairs.pairs and pairs.abs_max > 0.0:
        parts.append(f"differences of {pairs.abs_sum / pairs.pairs:.3g} in the mean and at most {pairs.abs_max:.3g}")
    found = correlate(pairs)
    return ", ".join([*parts, f"correlation {found:.3f}"] if found is not None else parts)
