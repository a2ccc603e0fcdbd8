"""How the control plane does with many models and endpoints: `python -m tests.e2e.scale --models 1000`.

Registers the models (three versions each) over the management API and lets it grow to the numbers of `--endpoints`,
each with a real runner process. At each size it applies one endpoint again and again with another `log.sample` (the
least change that reaches the gateways) and takes the time of the API's answer, the longest look of the control loop and
the time until every gateway ran the new snapshot. Prints one line of JSON per size; with `--write` it draws the plot of
docs/performance.md.
"""

import argparse
import hashlib
import json
import statistics
import sys
import tempfile
import time
from math import log
from pathlib import Path
from typing import Any, Final

import msgspec

from hyperion.schema.registry import FileEntry, Manifest
from hyperion.store.versions.digest import digest_of_entries
from hyperion.store.versions.push import prepare_push
from tests.e2e.admin_client import ENDED, Api, resource
from tests.e2e.releases import Platform
from tests.e2e.served import ROOT
from tests.e2e.tiny_models import write_tiny

TARGETS_MS: Final = {"apply": 300.0, "look": 1_000.0, "snapshot": 100.0}
COLOURS: Final = {"apply": "#1769aa", "look": "#c2410c", "snapshot": "#15803d"}
NAMES: Final = {"apply": "apply of one (API)", "look": "control loop pass", "snapshot": "snapshot to gateway"}
PLOT: Final = ROOT / "docs" / "img" / "control-scale.svg"
AT_ONCE: Final = {"strategy": "all-at-once"}
BATCH: Final = 25  # endpoints per apply, so that not all runners start at once


def register(api: Api, directory: Path, models: int) -> float:
    """Three versions of every model, each with a file of its own; the seconds that took."""
    started = time.monotonic()
    folder = write_tiny(directory, "v1")
    pattern = prepare_push("pattern", "1", folder).manifest
    code = pattern.files[0]
    api.upload(code.sha256, (folder / code.path).read_bytes())
    for number in range(models):
        for version in ("1", "2", "3"):
            manifest, weights = make_version(pattern, f"model-{number:04d}", version)
            api.upload(manifest.files[1].sha256, weights)
            api.ask("POST", f"registry/models/{manifest.model}/versions", {"manifest": msgspec.to_builtins(manifest)})
    return time.monotonic() - started


def make_version(pattern: Manifest, model: str, version: str) -> tuple[Manifest, bytes]:
    """The pattern's files and one of this version's own."""
    weights = f"{model}@{version}".encode()
    own = FileEntry("weights.bin", hashlib.sha256(weights).hexdigest(), len(weights))
    files = (pattern.files[0], own)
    said = {"model": model, "version": version, "digest": digest_of_entries(files), "files": files}
    return msgspec.structs.replace(pattern, **said), weights


def grow(api: Api, names: list[str], timeout_s: float) -> float:
    """Create these endpoints, in batches, and wait until all serve; the seconds that took."""
    started = time.monotonic()
    for first in range(0, len(names), BATCH):
        batch = names[first : first + BATCH]
        api.ask("POST", "endpoints", [wanted(name) for name in batch])
        for name in batch:
            left_s = timeout_s - (time.monotonic() - started)
            status = api.wait(name, lambda now: now["state"] in ENDED, left_s)
            if status["state"] != "promoted":
                raise RuntimeError(f"{name}: {status['state']}: {status['reason']}")
    return time.monotonic() - started


def wanted(name: str, sample: float = 0.01) -> dict[str, Any]:
    """Endpoint N serves version 1 of model N."""
    return resource(name, f"{name.replace('endpoint', 'model')}@1", rollout=AT_ONCE, log={"sample": sample})


def measure(platform: Platform, api: Api, names: list[str], count: int) -> dict[str, list[float]]:
    """`count` applies of one endpoint each: milliseconds of the answer, of the longest look after it, and of the
    snapshot's way to all gateways."""
    taken: dict[str, list[float]] = {"apply": [], "look": [], "snapshot": []}
    for number in range(count):
        name = names[number * 7 % len(names)]
        time.sleep(0.2)
        version = read_gauges(platform)["hyperion_snapshot_spread_seconds"]
        started = time.monotonic()
        api.ask("POST", "endpoints", wanted(name, 0.02 + number / 1_000))
        taken["apply"].append((time.monotonic() - started) * 1_000)
        looks = [0.0]
        for _ in range(40):
            gauges = read_gauges(platform)
            looks.append(gauges["hyperion_control_look_seconds"])
            if gauges["hyperion_snapshot_spread_seconds"] != version:
                break
            time.sleep(0.02)
        time.sleep(0.1)
        gauges = read_gauges(platform)
        looks.append(gauges["hyperion_control_look_seconds"])
        taken["look"].append(max(looks) * 1_000)
        taken["snapshot"].append(gauges["hyperion_snapshot_spread_seconds"] * 1_000)
    return taken


def read_gauges(platform: Platform) -> dict[str, float]:
    """What control says of its own work."""
    text = platform.served.get("/metrics", port=platform.served.admin_port).body.decode()
    lines = [line.split() for line in text.splitlines() if line.startswith(("hyperion_control_", "hyperion_snapshot_"))]
    return {name.partition("{")[0]: float(value) for name, value in lines}


def time_command(platform: Platform, name: str, directory: Path) -> float:
    """One apply by the command line, from the shell and back, in milliseconds."""
    path = directory / "one.yaml"
    path.write_text(json.dumps(wanted(name, 0.5)))
    started = time.monotonic()
    platform.run("apply", "-f", str(path), "--yes")
    return (time.monotonic() - started) * 1_000


def summarise(taken: dict[str, list[float]]) -> dict[str, Any]:
    """Medians and 99th percentiles in ms, and whether these are within the targets."""
    found: dict[str, Any] = {}
    for name, values in taken.items():
        ordered = sorted(values)
        p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
        found[name] = {"p50_ms": round(statistics.median(ordered), 1), "p99_ms": round(p99, 1)}
    found["as_expected"] = all(found[name]["p99_ms"] <= limit for name, limit in TARGETS_MS.items())
    return found


def run(directory: Path, models: int, sizes: list[int], count: int) -> list[dict[str, Any]]:
    """Everything, one result per size."""
    platform = Platform(directory)
    results = []
    with platform.served as served, Api(served) as api:
        registered_s = register(api, directory / "models", models)
        print(f"{models * 3} versions registered in {registered_s:.0f} s", file=sys.stderr)
        names = [f"endpoint-{number:04d}" for number in range(max(sizes))]
        there = 0
        for size in sorted(sizes):
            started_s = grow(api, names[there:size], 60.0 + 3.0 * (size - there))
            there = size
            time.sleep(2.0)
            found = summarise(measure(platform, api, names[:size], count))
            found |= {"models": models, "endpoints": size, "started_s": round(started_s, 1)}
            found["command_ms"] = round(time_command(platform, names[0], directory), 1)
            print(json.dumps(found), flush=True)
            results.append(found)
    return results


def draw(results: list[dict[str, Any]]) -> str:
    """The 99th percentiles against the number of endpoints, both axes logarithmic, with the targets dashed."""
    width, height, left, top = 640, 340, 64, 44
    wide, tall = width - left - 190, height - top - 56
    sizes = [found["endpoints"] for found in results]
    low, high = 1.0, 2_000.0

    def place(size: float, ms: float) -> tuple[float, float]:
        x = (log(size) - log(sizes[0])) / max(log(sizes[-1]) - log(sizes[0]), 1e-9)
        y = (log(max(ms, low)) - log(low)) / (log(high) - log(low))
        return left + x * wide, top + tall * (1 - y)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="22" font-size="15" fill="#111">Control plane with {results[0]["models"]} models of three '
        "versions (p99)</text>",
        f'<text x="{left + wide / 2}" y="{height - 12}" text-anchor="middle" fill="#333">endpoints</text>',
    ]
    for ms in (1, 10, 100, 1_000):
        _, y = place(sizes[0], ms)
        out.append(f'<line x1="{left}" x2="{left + wide}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e7eb"/>')
        out.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#333">{ms} ms</text>')
    for size in sizes:
        x, _ = place(size, low)
        out.append(f'<text x="{x:.1f}" y="{top + tall + 18}" text-anchor="middle" fill="#333">{size}</text>')
    for row, (name, colour) in enumerate(COLOURS.items()):
        points = [place(found["endpoints"], found[name]["p99_ms"]) for found in results]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        _, limit = place(sizes[0], TARGETS_MS[name])
        out.append(
            f'<line x1="{left}" x2="{left + wide}" y1="{limit:.1f}" y2="{limit:.1f}" stroke="{colour}" '
            'stroke-dasharray="3 4"/>'
        )
        y = top + 12 + 40 * row
        out.append(f'<rect x="{left + wide + 14}" y="{y - 9}" width="12" height="4" fill="{colour}"/>')
        out.append(f'<text x="{left + wide + 32}" y="{y}" fill="#111">{NAMES[name]}</text>')
        out.append(f'<text x="{left + wide + 32}" y="{y + 15}" fill="#6b7280">at most {TARGETS_MS[name]:g} ms</text>')
    return "\n".join([*out, "</svg>", ""])


def main() -> int:
    """Run it; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=1_000)
    parser.add_argument("--endpoints", default="10,50,100,200")
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--write", action="store_true", help=f"draw {PLOT.name}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        results = run(
            Path(directory), options.models, [int(one) for one in options.endpoints.split(",")], options.count
        )
    if options.write:
        PLOT.write_text(draw(results))
    return 0 if all(found["as_expected"] for found in results) else 1


if __name__ == "__main__":
    sys.exit(main())
