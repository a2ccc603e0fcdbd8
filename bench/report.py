"""Tables and plots from the results: ``report.md``, ``report.json`` and SVG files beside them."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

from bench.stats import Ratio, median_ratio
from bench.workloads import WORKLOADS

LIMITS = ("nginx", "bare")


def write(directory: Path) -> None:
    """Read every workload's results in ``directory`` and write the report there."""
    found = [json.loads((directory / f"{n}.json").read_text()) for n in WORKLOADS if (directory / f"{n}.json").exists()]
    if not found:
        raise SystemExit(f"bench: no results in {directory}; `python -m bench run` writes some")
    machine = found[0]["machine"]
    parts = [
        "# Benchmark results",
        "",
        "Written by `python -m bench report`; do not edit. How to read this: `docs/performance.md`.",
        "",
        "Machine: " + ", ".join(f"{k} {v}" for k, v in machine.items() if v),
        "",
    ]
    summary = {}
    for data in found:
        rows = [_row(entry) for entry in data["pairs"]]
        summary[data["workload"]] = {"pairs": rows, **{k: data[k] for k in ("open", "overload", "bare", "split")}}
        parts += [f"## {data['workload']}: {WORKLOADS[data['workload']].title}", ""]
        parts += _pairs_table(rows) + _open_table(data) + _overload_table(data) + _bare_table(data) + _split_table(data)
        parts += _tuning_table(data)
        parts += ["Versions: " + "; ".join(_versions(data)), ""] if data["versions"] else []
        parts += ["Commands: " + "; ".join(f"`{c}`" for c in data["commands"]), ""]
        if rows:
            name = f"{data['workload']}.svg"
            _plot(directory / name, data["workload"], rows)
            parts += [f"![throughput of {data['workload']}]({name})", ""]
    (directory / "report.md").write_text("\n".join(parts))
    (directory / "report.json").write_text(json.dumps({"machine": machine, "workloads": summary}, indent=1) + "\n")


def _row(entry: dict) -> dict:
    """Medians of both sides and the ratios between them."""
    a, b = ([pair[side] for pair in entry["pairs"]] for side in "ab")

    def mid(samples: list[dict], name: str) -> float | None:
        values = [s[name] for s in samples if s.get(name) is not None]
        return median(values) if values else None

    def ratio(name: str) -> dict:
        return vars(median_ratio([s[name] for s in a], [s[name] for s in b]))

    names = ("rate", "errors", "p50_ms", "cpu_us", "rss_mb", "batch", "other_cores")
    return {
        "subject": entry["subject"],
        "peer": entry["peer"],
        "concurrency": entry["concurrency"],
        "setting": entry["settings"][1],
        "seconds": entry["seconds"],
        "idle_cores": entry.get("idle_cores"),
        "subject_median": {n: mid(a, n) for n in names},
        "peer_median": {n: mid(b, n) for n in names},
        "rate_ratio": ratio("rate"),
        "cpu_ratio": ratio("cpu_us"),
    }


def _pairs_table(rows: list[dict]) -> list[str]:
    if not rows:
        return []
    out = [
        "Closed loop. Ratios are subject over peer, pair by pair: the median and its 95 % interval.",
        "",
        "| c | peer | setting | peer req/s | subject req/s | ratio of rates | peer p50 ms | subject p50 ms "
        "| peer CPU µs/req | subject CPU µs/req | peer errors | strangers, cores |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda r: (r["concurrency"], -(r["peer_median"]["rate"] or 0))):
        a, b = row["subject_median"], row["peer_median"]
        name = row["peer"] + (f" (rows/s at batch {b['batch']:.0f})" if row["peer"] == "bare" else "")
        out.append(
            f"| {row['concurrency']} | {name} | {_short(row['setting'])} | {b['rate']:,.0f} | {a['rate']:,.0f} "
            f"| {Ratio(**row['rate_ratio'])} | {_number(b['p50_ms'])} | {_number(a['p50_ms'])} "
            f"| {_number(b['cpu_us'])} | {_number(a['cpu_us'])} | {b['errors']:.1%} "
            f"| {_number(a['other_cores'])} |"
        )
    return [*out, ""]


def _open_table(data: dict) -> list[str]:
    if not data["open"]:
        return []
    out = [
        "Open loop, Poisson arrivals, latency from the intended send time. Medians over the rounds.",
        "",
        "| server | share of its peak | offered/s | held | p50 ms | p95 ms | p99 ms | errors | batch "
        "| bare ms at that batch | p99 / bare |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in data["open"]:
        runs = [r for r in entry["runs"] if r["latency_ms"]]
        if not runs:
            continue
        p50, p95, p99 = (median(r["latency_ms"][q] for r in runs) for q in ("p50", "p95", "p99"))
        batches = [r["batch"] for r in runs if r["batch"]]
        bare = median(r["bare_ms"] for r in runs)
        over = f"{median(r['latency_ms']['p99'] / r['bare_ms'] for r in runs):.1f}"
        out.append(
            f"| {entry['peer']} | {entry['share']:.0%} | {median(r['offered_rate'] for r in runs):,.0f} "
            f"| {sum(r['held'] for r in runs)} of {len(runs)} | {p50:.2f} | {p95:.2f} | {p99:.2f} "
            f"| {median(r['errors'] for r in runs):.2%} | {f'{median(batches):.1f}' if batches else '(1)'} "
            f"| {bare:.2f} | {over} |"
        )
    return [*out, ""]


def _overload_table(data: dict) -> list[str]:
    if not data["overload"]:
        return []
    out = [
        "Overload.",
        "",
        "| server | offered | held | goodput of peak | admitted p99 ms (deadline) | refused p99 ms | with retry-after "
        "| memory MB first / last third | peak afterwards |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for e in data["overload"]:
        report, memory = e["report"], e["memory_mb"]
        out.append(
            f"| {e['peer']} | {e['factor']:g}× = {report['offered_rate']:,.0f}/s for {e['seconds']:g} s "
            f"| {'yes' if report['held'] else 'NO'} | {e['goodput_share']:.1%} "
            f"| {_number(e['admitted_p99_ms'])} ({e['deadline_ms']:g}) | {_number(e['refused_p99_ms'])} "
            f"| {e['retry_after_share']:.0%} of {report['refusals']} "
            f"| {memory['first_third']:.0f} / {memory['last_third']:.0f} | {e['peak_after'] / e['peak']:.0%} |"
        )
    return [*out, ""]


def _bare_table(data: dict) -> list[str]:
    if not data["bare"]:
        return []
    rows = sorted(data["bare"], key=lambda e: e["batch"])
    cells = [f"{e['batch']}: {e['batch_ms']:.3g} ms, {e['rows_per_s']:,.0f} rows/s" for e in rows]
    return ["The model alone, one thread, by batch size: " + "; ".join(cells) + ".", ""]


def _split_table(data: dict) -> list[str]:
    out: list[str] = []
    for entry in data["split"]:
        parts = "; ".join(f"{k} {v:g}" for k, v in entry["one_at_a_time_ms"].items())
        out += [f"One request at a time, {entry['peer']}, medians in ms by `server-timing`: {parts}.", ""]
        out += [
            "| process | CPU µs/request | parse | copy | compute | sockets | other |",
            "|---|---|---|---|---|---|---|",
        ]
        for role, p in entry["under_load"].items():
            cells = (f"{p[name]:g}" for name in ("cpu_us", "parse", "copy", "compute", "sockets", "other"))
            out.append(f"| {role} | {' | '.join(cells)} |")
        out.append("")
    return out


def _tuning_table(data: dict) -> list[str]:
    if not data["tuning"]:
        return []
    head = ["<details><summary>Settings tried</summary>", "", "| peer | c | setting | req/s | errors |"]
    rows = [
        f"| {e['peer']} | {e['concurrency']} | {_short(e['setting'])} | {e['rate']:,.0f} | {e['errors']:.1%} |"
        for e in sorted(data["tuning"], key=lambda e: (e["peer"], e["concurrency"], -e["rate"]))
    ]
    return [*head, "|---|---|---|---|---|", *rows, "", "</details>", ""]


def _versions(data: dict) -> list[str]:
    return [f"{p}: " + ", ".join(f"{k} {v}" for k, v in packages.items()) for p, packages in data["versions"].items()]


def _short(setting: dict) -> str:
    return ", ".join(f"{k} {v}" for k, v in setting.items()) or "default"


def _number(value: float | None) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _plot(path: Path, workload: str, rows: list[dict]) -> None:
    """Requests per second of everybody by concurrency, on a logarithmic axis, limits hatched."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "bench"  # the same figures give the same file
    import matplotlib.pyplot as plt

    shown = [r for r in rows if not r["peer"].endswith("#2")]
    levels = sorted({r["concurrency"] for r in shown})
    figure, axes = plt.subplots(1, len(levels), figsize=(4.2 * len(levels), 3.6), squeeze=False)
    for axis, level in zip(axes[0], levels, strict=True):
        here = [r for r in shown if r["concurrency"] == level]
        rates = {r["peer"]: r["peer_median"]["rate"] for r in here}
        rates[here[0]["subject"]] = median(r["subject_median"]["rate"] for r in here)
        names = sorted(rates, key=lambda n: rates[n])
        for i, name in enumerate(names):
            colour = "#c8553d" if name == here[0]["subject"] else "#b8b8b8" if name in LIMITS else "#588b8b"
            axis.barh(i, max(rates[name], 1), color=colour, hatch="//" if name in LIMITS else None, edgecolor="white")
            axis.text(max(rates[name], 1), i, f" {rates[name]:,.0f}", va="center", fontsize=7)
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set_xscale("log")
        axis.set_xlim(right=max(rates.values()) * 6)
        axis.set_title(f"{workload}, {level} in flight", fontsize=9)
        axis.set_xlabel("answers per second (bare: rows)", fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
