"""Which version is meant, and how its runners are set up: an endpoint's live version, one of the registry, or a PATH.

Reads the store of a home, whether or not the platform runs; files of the registry are laid out as control does it,
with the same judgement of signatures.
"""

import os
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from hyperion.batch.runner_link import RunnerLink
from hyperion.control.release.book import Book
from hyperion.control.release.record import Record, decode_record
from hyperion.control.sources import resolve
from hyperion.control.trust import read_trust
from hyperion.schema.config import ControlConfig, RunnerConfig
from hyperion.schema.errors import InvalidConfig, ModelRefused, UnknownModel
from hyperion.schema.model import ModelOptions
from hyperion.schema.registry import Manifest, VerifiedSpec
from hyperion.store import endpoints, registry, rollouts
from hyperion.store.blobs.opening import open_blobs
from hyperion.store.database import Database, open_home
from hyperion.store.desired import DesiredState
from hyperion.store.repositories.discover import discover

COMPUTE_MS: Final = 600_000  # for one batch: nobody waits, but a model that hangs must not hang the run


class Found(Struct, frozen=True):
    """The version that is meant: `name` is `fraud@3`, or a path."""

    name: str
    digest: str
    verified: VerifiedSpec


def find_model(model: str, endpoint: str, platform: ControlConfig, pinned: str = "") -> Found:
    """What `model` (NAME@VERSION, NAME@ALIAS or a path) or else `endpoint` means now. `pinned` is the version that it
    meant when the run began, "" at its beginning.

    Raises UnknownModel, ModelRefused, InvalidConfig, StorageFailed.
    """
    if model and is_path(model):
        return _discover(model, platform.defaults)
    home = Path(platform.home)
    if not (home / "hyperion.db").is_file() and not platform.database_url:
        raise InvalidConfig(f"{home}: no platform has its home there; give --home, or the path of a model")
    key = Path(platform.ledger_key) if platform.ledger_key else None
    database = open_home(home, platform.database_url, key=key)
    try:
        blobs = open_blobs(platform.blobs_url, home)
        trust = read_trust(platform)
        book = Book(database, blobs, home / "artifacts", trust, platform.defaults.trust_pickle)
        reference = pinned if "@" in pinned else model or _live_version(database, endpoint)
        if not reference:
            return _find_desired(endpoint, home)
        with database.read() as tx:
            manifest: Manifest = registry.resolve(tx, reference)
        verified = book.lay_out(manifest, manifest.model, manifest.options)
    finally:
        database.close()
    return Found(f"{manifest.model}@{manifest.version}", manifest.digest, verified)


def is_path(model: str) -> bool:
    """Whether a model is named by where it lies.

    >>> is_path("./fraud.onnx"), is_path("models/fraud"), is_path("fraud@3"), is_path("fraud")
    (True, True, False, False)
    """
    return os.sep in model or bool(Path(model).suffix and "@" not in model)


def make_link(found: Found, platform: ControlConfig, run_dir: Path, number: int, threads: int, rows: int) -> RunnerLink:
    """Start runner `number` of a run. Raises ModelRefused."""
    spec, verified = found.verified.spec, found.verified
    options = msgspec.structs.replace(
        spec.options, threads=threads, deadline_ms=max(spec.options.deadline_ms, COMPUTE_MS), warmup=False
    )
    socket = run_dir / f"b-{os.getpid()}-{number}.sock"
    config = RunnerConfig(
        f"{spec.name}@{spec.version}.batch.{number}",
        str(socket),
        msgspec.structs.replace(spec, options=options),
        root=verified.root,
        verified=() if len(verified.files) > 100 else verified.files,
        sandbox=platform.sandbox,
        home=platform.home,
        readable=platform.readable,
        scratch=str(socket.with_suffix(".tmp")),
    )
    return RunnerLink(config, rows)


def _discover(path: str, defaults: ModelOptions) -> Found:
    specs = discover(Path(path), defaults)
    if len(specs) != 1:
        held = ", ".join(f"{spec.name}@{spec.version}" for spec in specs)
        raise ModelRefused(f"{path}: expected one version, found {held}; give the path of one")
    return Found(path, specs[0].digest, VerifiedSpec(specs[0], "", ()))


def _live_version(database: Database, endpoint: str) -> str:
    """The reference of what an endpoint serves, "" where the registry knows nothing of it."""
    with database.read() as tx:
        row, release = endpoints.get(tx, endpoint), rollouts.get(tx, endpoint)
    if row is None or row.deleting:
        return ""
    if not row.resource.spec.model:
        raise UnknownModel(f'endpoint "{endpoint}" is no model of ours, but an upstream or a graph: use --via-endpoint')
    live = _runtime_of(decode_record(release.body, release.revision)) if release is not None else ""
    return live or row.resource.spec.model


def _runtime_of(record: Record) -> str:
    state = record.state
    label = state.to_version if state.state == "promoted" else state.from_version
    runtime = record.kept.runtimes.get(label)
    return f"{runtime.model}@{runtime.version}" if runtime is not None else ""


def _find_desired(endpoint: str, home: Path) -> Found:
    """A model that `hyperion serve PATH` serves."""
    row = DesiredState(home / "hyperion.db").get(endpoint)
    if row is None:
        raise UnknownModel(f'no endpoint and no model "{endpoint}" is known in {home}; see: hyperion get endpoints')
    resolved = resolve(row)
    if resolved.error or len(resolved.specs) != 1:
        held = ", ".join(spec.version for spec in resolved.specs)
        raise ModelRefused(resolved.error or f"{endpoint} has the versions {held}; give the path of one")
    spec = resolved.specs[0]
    return Found(f"{endpoint} ({row.source})", spec.digest, VerifiedSpec(spec, "", ()))
