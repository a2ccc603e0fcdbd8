"""Simulates rollouts with the very code that decides them, and writes figures and plots for `docs/rollout-verdicts.md`.

    .venv/bin/python tools/simulate_rollouts.py docs/images

The suite runs the same functions (`tests/policy/test_simulation.py`). Streams of events come from numpy; every verdict
comes from `hyperion.policy`. Where 20 million verdicts are wanted, the smallest count that halts is looked up for each
number of events first: the evidence grows with the canary's share of the bad events, so that one number says it all.
"""

import sys
from bisect import bisect_left
from collections.abc import Callable, Sequence
from math import log, sqrt
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hyperion.policy.evidence import Tally, log_worse
from hyperion.policy.release.metrics import PASS_LEVEL, log_pass

Counts = NDArray[np.int64]
ALPHA: Final = 0.01
Series = Sequence[tuple[float, float]]
NEVER: Final = 1 << 40


def find_boundary(share: float, margin: float, events: int, metrics: int = 1, alpha: float = ALPHA) -> Counts:
    """For each number of bad events, 1 to `events`: the fewest of the canary's that halt."""
    bar = log(metrics / alpha)
    fewest, found = 0, []
    for total in range(1, events + 1):
        while fewest <= total and log_worse([Tally(share, fewest, total - fewest)], margin) < bar:
            fewest += 1
        found.append(fewest)
    return np.array(found)


def find_z_boundary(share: float, margin: float, events: int, z: float = 2.326, least: int = 30) -> Counts:
    """The same for a one-sided z-test at 1 %, made anew at each look from `least` events on as if it were the first."""
    total = np.arange(1, events + 1)
    chance = margin * share / (margin * share + 1 - share)
    boundary: Counts = np.floor(total * chance + z * np.sqrt(total * chance * (1 - chance))).astype(np.int64) + 1
    boundary[: least - 1] = NEVER
    return boundary


def first_halts(rng: np.random.Generator, share: float, ratio: float, boundary: Counts, runs: int) -> Counts:
    """At which bad event each of `runs` rollouts halts, looked at after each; `NEVER` where it does not."""
    chance = ratio * share / (ratio * share + 1 - share)
    halted = []
    for start in range(0, runs, 1_000):
        canary = np.cumsum(rng.random((min(1_000, runs - start), len(boundary))) < chance, axis=1)
        over = canary >= boundary
        halted.append(np.where(over.any(axis=1), over.argmax(axis=1) + 1, NEVER))
    return np.concatenate(halted)


def upper_bound(hits: int, runs: int, z: float = 1.645) -> float:
    """The 95 % upper bound of a share (Wilson)."""
    share = hits / runs
    middle = share + z * z / (2 * runs)
    return (middle + z * sqrt(share * (1 - share) / runs + z * z / (4 * runs * runs))) / (1 + z * z / runs)


def is_promoted(
    rng: np.random.Generator, share: float, control_rate: float, ratio: float, allowance: float, events: int
) -> int:
    """After how many canary requests `pass` is reached, looked at after every request; 0 where it is not within
    `events` bad ones. Between bad events the evidence only grows, so that a gap is looked at from its end first."""
    canary_rate = control_rate * ratio
    bad_rate = share * canary_rate + (1 - share) * control_rate
    gaps = rng.geometric(bad_rate, events)
    mine = rng.random(events) < share * canary_rate / bad_rate
    goods = rng.binomial(gaps - 1, share * (1 - canary_rate) / (1 - bad_rate))
    bad = control = requests = 0

    def passes(at: int) -> bool:
        return log_pass([Tally(share, bad, control)], bad, at, 1.2, allowance) >= -log(PASS_LEVEL)

    for good, is_mine in zip(goods.tolist(), mine.tolist(), strict=True):
        if passes(requests + good):
            return max(bisect_left(range(requests, requests + good), True, key=passes) + requests, 1)
        requests, bad, control = requests + good + is_mine, bad + is_mine, control + (not is_mine)
    return 0


def halt_by_minutes(
    rng: np.random.Generator, rule: str, base: float, ratio: float, *, runs: int, minutes: int = 60, share: float = 0.05
) -> tuple[float, float]:
    """The share of rollouts that a rule halts within an hour at 500 requests/s, looked at each minute, and the median
    of the failed requests of the canary until then."""
    every = 500 * 60
    canary = rng.binomial(int(every * share), min(base * ratio, 1.0), (runs, minutes))
    control = rng.binomial(int(every * (1 - share)), base, (runs, minutes))
    if rule == "ours":
        over = np.array([_ours(share, *pair) for pair in zip(canary.cumsum(1), control.cumsum(1), strict=True)])
    else:
        over = canary > {"argo": 0.05, "flagger": 0.01}[rule] * int(every * share)
    halted = over.any(axis=1)
    at = over.argmax(axis=1)
    harmed = canary.cumsum(1)[np.arange(runs), at][halted]
    return float(halted.mean()), float(np.median(harmed)) if halted.any() else float("nan")


def _ours(share: float, canary: Counts, control: Counts) -> list[bool]:
    bar = log(2 / ALPHA)
    pairs = zip(canary.tolist(), control.tolist(), strict=True)
    return [log_worse([Tally(share, one, other)], 1.2) >= bar for one, other in pairs]


def draw_plot(
    title: str,
    x_label: str,
    y_label: str,
    series: dict[str, Series],
    *,
    logarithmic: bool = False,
) -> str:
    """A line plot as SVG. `series` has points (x, share) by name; the y axis is in per cent."""
    width, height, left, top = 640, 340, 64, 44
    wide, tall = width - left - 170, height - top - 56
    xs = [x for points in series.values() for x, _ in points]
    low, high = min(xs), max(xs)
    most = max(y for points in series.values() for _, y in points) or 1.0
    colours = ("#1769aa", "#c2410c", "#6b7280", "#15803d")

    def place(x: float, y: float) -> tuple[float, float]:
        part = (log(x) - log(low)) / (log(high) - log(low)) if logarithmic else (x - low) / (high - low)
        return left + part * wide, top + tall * (1 - y / most)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="22" font-size="15" fill="#111">{title}</text>',
        f'<text x="{left + wide / 2}" y="{height - 12}" text-anchor="middle" fill="#333">{x_label}</text>',
        f'<text x="16" y="{top + tall / 2}" text-anchor="middle" fill="#333" '
        f'transform="rotate(-90 16 {top + tall / 2})">{y_label}</text>',
    ]
    for step in range(6):
        _, y = place(high, most * step / 5)
        out.append(f'<line x1="{left}" x2="{left + wide}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e7eb"/>')
        out.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#333">{most * step / 5:.1%}</text>')
    ticks = sorted(set(xs)) if len(set(xs)) < 12 else [low + (high - low) * step / 4 for step in range(5)]
    for tick in ticks:
        x, _ = place(tick, 0)
        out.append(f'<text x="{x:.1f}" y="{top + tall + 18}" text-anchor="middle" fill="#333">{tick:g}</text>')
    for row, (name, points) in enumerate(series.items()):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        colour = colours[row % len(colours)]
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        y = top + 12 + 20 * row
        out.append(f'<rect x="{left + wide + 14}" y="{y - 9}" width="12" height="4" fill="{colour}"/>')
        out.append(f'<text x="{left + wide + 32}" y="{y}" fill="#111">{name}</text>')
    return "\n".join([*out, "</svg>", ""])


def report_halts(rng: np.random.Generator, say: Callable[[str], None], runs: int, events: int) -> None:
    """False halts and the median bad events to a halt, over shares, margins and numbers of metrics."""
    say("| canary | margin | metrics | false halts at the margin | 95 % upper bound | ratio 2 | ratio 5 | ratio 20 |")
    say("|---|---|---|---|---|---|---|---|")
    for share in (0.05, 0.2, 0.5):
        for margin, metrics in ((1.0, 1), (1.0, 2), (1.2, 1), (1.2, 2)):
            boundary = find_boundary(share, margin, events, metrics)
            wrong = int((first_halts(rng, share, margin, boundary, runs) < NEVER).sum())
            medians = [int(np.median(first_halts(rng, share, ratio, boundary, runs))) for ratio in (2, 5, 20)]
            row = [
                f"{share:.0%}",
                f"{margin:g}",
                str(metrics),
                f"{wrong / runs:.2%}",
                f"{upper_bound(wrong, runs):.2%}",
            ]
            say("| " + " | ".join([*row, *map(str, medians)]) + " |")


def plot_peeking(rng: np.random.Generator, say: Callable[[str], None], folder: Path, runs: int, events: int) -> None:
    """Our false halts beside those of a z-test that is looked at again and again."""
    series: dict[str, Series] = {}
    for name, boundary in (
        ("this test", find_boundary(0.05, 1.0, events)),
        ("z-test at 1 %", find_z_boundary(0.05, 1.0, events)),
    ):
        halts = first_halts(rng, 0.05, 1.0, boundary, runs)
        series[name] = [(float(at), float((halts <= at).mean())) for at in range(1, events + 1, 20)]
        say(f"{name}, both versions alike, peeked at every event: {series[name][-1][1]:.2%} false halts")
    text = draw_plot("Rollouts of a version that is no worse: halted by now", "bad events seen", "false halts", series)
    (folder / "verdict-peeking.svg").write_text(text)


def plot_rules(rng: np.random.Generator, say: Callable[[str], None], folder: Path, runs: int) -> None:
    """Ours beside fixed thresholds, where errors are rare and where both versions have some."""
    ratios = (1, 1.5, 2, 3, 5, 10, 20)
    names = {"ours": "this test", "argo": "success ≥ 95 %", "flagger": "5xx < 1 %"}
    for base in (0.001, 0.02):
        say(f"\nThe control fails {base:.1%}; halted within an hour (median failed requests until then):\n")
        say("| rule | " + " | ".join(f"{ratio:g}×" for ratio in ratios) + " |")
        say("|---" * (len(ratios) + 1) + "|")
        series: dict[str, Series] = {}
        for rule, name in names.items():
            found = [halt_by_minutes(rng, rule, base, ratio, runs=runs) for ratio in ratios]
            series[name] = [(float(ratio), share) for ratio, (share, _) in zip(ratios, found, strict=True)]
            cells = [f"{share:.0%}" + (f" ({harmed:.0f})" if share else "") for share, harmed in found]
            say(f"| {name} | " + " | ".join(cells) + " |")
        title = f"Halted within an hour, where the old version fails {base:.1%}"
        text = draw_plot(title, "the new version's errors, times the old one's", "halted", series, logarithmic=True)
        (folder / f"verdict-rules-{base * 1000:g}.svg").write_text(text)


def report_promotions(rng: np.random.Generator, say: Callable[[str], None], runs: int) -> None:
    """How often a version at the margin passes, and what a good one needs to."""
    say("\n| canary | control fails | ratio | allowed | passed | 95 % upper bound | median requests of the canary |")
    say("|---|---|---|---|---|---|---|")
    for share, control, ratio in (
        (0.5, 0.001 / 1.5, 1.5),
        (0.5, 0.01, 1.5),
        (0.05, 0.001 / 1.5, 1.5),
        (0.5, 0.01, 1.0),
        (0.5, 0.0002, 1.0),
        (0.5, 0.00001, 1.0),
    ):
        passed = [is_promoted(rng, share, control, ratio, 0.001, 300) for _ in range(runs)]
        good = [requests for requests in passed if requests]
        row = [f"{share:.0%}", f"{control:.3%}", f"{ratio:g}", "0.1%", f"{len(good) / runs:.1%}"]
        row += [f"{upper_bound(len(good), runs):.1%}", f"{int(np.median(good)):,}" if good else "–"]
        say("| " + " | ".join(row) + " |")


def main(arguments: Sequence[str]) -> None:
    """Runs all of it: `FOLDER [RUNS]`."""
    folder = Path(arguments[0])
    runs = int(arguments[1]) if len(arguments) > 1 else 10_000
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20)

    def say(line: str) -> None:
        print(line, flush=True)

    report_halts(rng, say, runs, 2_000)
    plot_peeking(rng, say, folder, runs, 2_000)
    plot_rules(rng, say, folder, max(runs // 10, 100))
    report_promotions(rng, say, runs // 4)


if __name__ == "__main__":
    main(sys.argv[1:])
