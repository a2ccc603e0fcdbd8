"""What `hyperion serve` says once it serves: where, a line to try it, and how to stop."""

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

from hyperion.cli.sample import count_elements, make_request
from hyperion.policy.placement import UNLOADED
from hyperion.schema.snapshot import ModelState, ServedModel, Snapshot

_INLINE_ELEMENTS = 200
_SHOWN_MODELS = 12
_USUAL_ADMIN_URL = "http://127.0.0.1:8082/"
Callers = Literal["local", "any", "known", "certified"]
_CALLERS: dict[Callers, str] = {
    "local": "",  # as one expects on the loopback
    "any": "anybody who reaches this port; --require-auth asks for keys",
    "known": "with a key, a token of an issuer, or a client certificate only; --open lets anybody in",
    "certified": "with a client certificate only",
}


class Addresses(Struct, frozen=True):
    """Where the platform listens. `grpc` "" means not at all; `paths` are the PATHs that were given. `callers` says
    whom it answers: anybody, on this machine or anywhere, or who has credentials or a certificate."""

    url: str
    grpc: str
    admin_url: str
    home: Path
    paths: tuple[str, ...] = ()
    callers: Callers = "local"


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
    lines += [f"  {state.name}: {state.state}: {state.reason}" for state in list_broken(snapshot)]
    if served:
        lines += ["", f"{bold}Try it{reset}"]
        if addresses.callers == "known":
            lines.append(f"  KEY=$({write_key_command(addresses)})")
        lines.append(f"  {write_curl(served[0], addresses)}")
    elif not list_broken(snapshot):
        lines += [f"{bold}Next{reset}", "  hyperion model push NAME PATH", "  hyperion apply -f ENDPOINT.yaml"]
    lines += ["", f"{bold}Also{reset}"]
    if addresses.grpc:
        lines.append(f"  gRPC        {addresses.grpc}")
    if _CALLERS[addresses.callers]:
        lines.append(f"  Callers     {_CALLERS[addresses.callers]}")
    lines.append(f"  Management  {addresses.admin_url} {dim}(token in {_near(addresses.home / 'admin-token')}){reset}")
    lines += ["  Stop        Ctrl-C", ""]
    return "\n".join(lines)


def list_broken(snapshot: Snapshot) -> list[ModelState]:
    """Return what should be served and is not. What was unloaded, or belongs to an earlier start, should not be."""
    return [state for state in snapshot.index if state.state != "READY" and state.reason != UNLOADED]


def write_key_command(addresses: Addresses) -> str:
    """Return the command that makes a key, with what it needs to find this platform from the current directory."""
    command = "hyperion key create --tenant me"
    if addresses.admin_url != _USUAL_ADMIN_URL:
        command += f" --url {addresses.admin_url.rstrip('/')}"
    home = _near(addresses.home)
    return command if home == ".hyperion" else f"{command} --home {shlex.quote(home)}"


def write_curl(model: ServedModel, addresses: Addresses) -> str:
    """Return a curl command that works as pasted in the current directory, once `$KEY` is set where one is needed. A
    client certificate is the caller's to name."""
    url = f"{addresses.url}/v2/models/{model.name}/infer"
    options = "-k " if url.startswith("https:") else ""
    if addresses.callers == "certified":
        options += "--cert CLIENT.pem --key CLIENT.key "
    credentials = ' -H "authorization: Bearer $KEY"' if addresses.callers == "known" else ""
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
    return f"curl -s {options}{url}{credentials} -H 'content-type: application/json' -d {shlex.quote(data)}"


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
