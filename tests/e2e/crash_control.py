"""kill -9 of control at every write point: `python -m tests.e2e.crash_control {pieces,tree,all} [--store …]`.

`pieces` kills a control process without gateways (`crash_history`) at every fault point that its history passes, over
SQLite and PostgreSQL, and looks at what is left, and at how it goes on. `tree` does it to the control process of a real
`hyperion serve` under load (`crash_tree`). Each prints a line of JSON; the exit code is 1 if anything was not as it
must be. The suite runs a sample of the same.
"""

import argparse
import json
import sys
import time
from typing import Any, Final

from tests.e2e.crash_pieces import Pieces

STORES: Final = ("sqlite", "postgresql")


def crash_pieces(kind: str, every: int = 1) -> dict[str, Any]:
    """A history for every fault point (or each `every`-th one), killed there."""
    started = time.monotonic()
    pieces = Pieces(kind)
    points = pieces.enumerate_points()
    killed, problems = 0, []
    for at in range(0, len(points), every):
        killed += 1
        try:
            pieces.kill(at, f"{at} ({points[at]})")
        except AssertionError as error:
            problems.append(str(error)[:500])
            print(problems[-1], file=sys.stderr, flush=True)
    return {
        "what": "pieces",
        "store": kind,
        "as_expected": not problems,
        "points": len(points),
        "kinds_of_points": len(set(points)),
        "killed": killed,
        "problems": problems[:5],
        "seconds": round(time.monotonic() - started, 1),
    }


def main() -> int:
    """Run what is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("all", "pieces", "tree"))
    parser.add_argument("--store", choices=("all", *STORES), default="all")
    parser.add_argument("--every", type=int, default=1, help="of the points of `pieces`")
    parser.add_argument("--runs", type=int, default=2, help="of `tree`: another point of each step in each")
    options = parser.parse_args()
    # Not at the top: each child of `pieces` imports this file, and this takes seconds.
    from tests.e2e.crash_tree import choose_kills, crash_tree

    stores = STORES if options.store == "all" else (options.store,)
    fine = True
    for kind in stores:
        if options.what in ("all", "pieces"):
            seen = crash_pieces(kind, options.every)
            fine &= bool(seen["as_expected"])
            print(json.dumps(seen), flush=True)
        if options.what in ("all", "tree"):
            points: dict[str, list[str]] = {}
            for run in range(-1, options.runs):
                # The first one dies nowhere, and shows the points at which the others do.
                seen = crash_tree(kind, choose_kills(points, run, options.runs) if points else {})
                fine &= bool(seen["as_expected"])
                points = points or seen["points"]
                print(json.dumps({**seen, "points": sum(map(len, seen["points"].values()))}), flush=True)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
