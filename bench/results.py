"""One JSON file of results per workload, written after every comparison so that a long run can be cut and continued."""

from __future__ import annotations

import json
from pathlib import Path

from bench import machine
from bench.env import timestamp

SECTIONS = ("tuning", "pairs", "open", "overload", "bare", "split")


class Results:
    """Entries are replaced by key: measuring the same thing again forgets the older figures."""

    def __init__(self, directory: Path, workload: str) -> None:
        self.path = directory / f"{workload}.json"
        if self.path.exists():
            self.data = json.loads(self.path.read_text())
        else:
            self.data = {"workload": workload, "versions": {}, "commands": [], **{name: [] for name in SECTIONS}}
        self.data["machine"] = machine.describe()

    def put(self, section: str, key: dict[str, object], value: dict[str, object]) -> None:
        """Store ``value`` under ``key`` in a section, and write the file."""
        entries = [e for e in self.data[section] if any(e.get(k) != v for k, v in key.items())]
        self.data[section] = [*entries, {**key, **value, "at": timestamp()}]
        self.save()

    def find(self, section: str, **key: object) -> list[dict]:
        return [e for e in self.data[section] if all(e.get(k) == v for k, v in key.items())]

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.data, indent=1) + "\n")
