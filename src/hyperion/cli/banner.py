"""What `hyperion serve` says once it serves: where, a line to try it, and how to stop."""

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from hyperion.cli.sample import count_elements, make_request
from hyperion.schema.snapshot import ServedModel, Snapshot

_INLINE_ELEMENTS = 200
_SHOWN_MODELS = 12


class Addresses(Struct, frozen=True):
    """Where the platform listens. `grpc` "" means not at all; `paths` are the PATHs that were given."""

    url: str
    grpc: str
    admin_url: str
    home: Path
    paths: tuple[str, ...] = ()


def write_banner(snapshot: Snapshot, addresses: Addresses, *, colour: bool) -> str:
    """Return the text. Writes a request file into the home where a request is too long for a line."""
    bold, dim, reset = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if colour else ("", "", "")
    served = snapshot.models
    count = f"{len(served)} model" + ("" if len(served) == 1 else "s")
    lines = [f"{bold}Hyperion serves {count}{reset} at {addresses.url}", ""]
    for model in served[:_SHOWN_MODELS]:
        versions = ", ".join(version.version for version in model.versions)
        lines.append(f"  {model.name} {dim}version {versions}, {model.versions[0].platform}{reset}")
    if len(served) > _SHOWN_MODELS:
        lines.append(f"  ... and {len(served) - _SHOWN_MODELS} more: {addresses.url}/v2/models")
    lines += [f"  {state.name}: {state.state}: {state.reason}" for state in snapshot.index if state.state != "READY"]
    if served:
        lines += ["", f"{bold}Try it{reset}", f"  {write_curl(served[0], addresses)}"]
    elif not snapshot.index:
        lines += [f"{bold}Next{reset}", "  hyperion model push NAME PATH", "  hyperion apply -f ENDPOINT.yaml"]
    lines += ["", f"{bold}Also{reset}"]
    if addresses.grpc:
        lines.append(f"  gRPC        {addresses.grpc}")
    lines.append(f"  Management  {addresses.admin_url} {dim}(token in {_near(addresses.home / 'admin-token')}){reset}")
    lines += ["  Stop        Ctrl-C", ""]
    return "\n".join(lines)


def write_curl(model: ServedModel, addresses: Addresses) -> str:
    """Return a curl command that works as pasted in the current directory."""
    url = f"{addresses.url}/v2/models/{model.name}/infer"
    insecure = "-k " if url.startswith("https:") else ""
    beside = find_request_file(addresses.paths)
    if beside is not None:
        data = f"@{_near(beside)}"
    else:
        signature = model.versions[-1].signature
        data = json.dumps(make_request(signature), separators=(",", ":"))
        if count_elements(signature) > _INLINE_ELEMENTS:
            path = addresses.home / f"request-{model.name}.json"
            path.write_text(data)
            data = f"@{_near(path)}"
    return f"curl -s {insecure}{url} -H 'content-type: application/json' -d {shlex.quote(data)}"


def find_request_file(paths: Sequence[str]) -> Path | None:
    """Return the `request.json` beside the first model, if somebody put one there."""
    if not paths:
        return None
    path = Path(paths[0])
    candidate = (path if path.is_dir() else path.parent) / "request.json"
    return candidate if candidate.is_file() else None


def _near(path: Path) -> str:
    """The path as one would type it here."""
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path.absolute())
