"""The verbs over keys, the ledger and lineage. Part of the desk."""

from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from hyperion.control.release.record import Record, decode_record
from hyperion.schema.errors import NotFound
from hyperion.schema.release import PredictionRow
from hyperion.store import ledger, predictions, registry, rollouts, tokens
from hyperion.store.database import Database
from hyperion.store.ledger import Entry, Findings
from hyperion.store.tokens import TokenRow
from hyperion.store.views import Explained, LiveThen, Registered

_PAGE = 1_000
_APPROVALS = 20
_STEPS = tuple(f"rollout.{step}" for step in ("started", "step", "promoted", "paused", "halted", "aborted", "undone"))


class Audit:
    """Reads the ledger; writes only keys, with their entries. `welcome` is called after each such write, from any
    thread."""

    def __init__(self, database: Database, welcome: Callable[[], None]) -> None:
        self._database = database
        self._welcome = welcome

    def create_key(
        self, tenant: str, scopes: Sequence[str], expires_at: float | None, *, actor: str
    ) -> tuple[TokenRow, str]:
        """Make a key. Returns its row and the secret, which nobody can show again."""
        with self._database.write() as tx:
            made = tokens.create(tx, tenant, tuple(scopes), expires_at, actor=actor)
        self._welcome()
        return made

    def rotate_key(
        self, key_id: str, overlap_s: float, *, actor: str, reason: str = ""
    ) -> tuple[TokenRow, str, TokenRow]:
        """Make a key's successor, and let the old one end after the overlap. Returns the new one, its secret, and the
        old one. Raises `NotFound`, `Conflict`."""
        with self._database.write() as tx:
            made = tokens.rotate(tx, key_id, overlap_s, actor=actor, reason=reason)
        self._welcome()
        return made

    def find_key(self, secret: str) -> TokenRow | None:
        """The key that has this secret, unless it is revoked or expired."""
        with self._database.read() as tx:
            return tokens.find(tx, secret)

    def list_keys(self) -> list[TokenRow]:
        """All keys, without their secrets."""
        rows: list[TokenRow] = []
        with self._database.read() as tx:
            while page := tokens.list_(tx, after=rows[-1].id if rows else ""):
                rows += page
        return rows

    def revoke_key(self, key_id: str, *, actor: str, reason: str = "") -> None:
        """End a key. Raises `NotFound`."""
        with self._database.write() as tx:
            tokens.revoke(tx, key_id, actor=actor, reason=reason)
        self._welcome()

    def entries(
        self, *, after: int = -1, limit: int = 100, subject: str = "", kind: str = "", newest: bool = False
    ) -> list[Entry]:
        """Ledger entries, oldest first or `newest` first, behind sequence number `after`."""
        with self._database.read() as tx:
            return ledger.entries(tx, after=after, limit=limit, subject=subject, kind=kind, newest=newest)

    def checkpoint(self) -> str:
        """The newest signed checkpoint."""
        with self._database.read() as tx:
            return ledger.checkpoint(tx)

    def vkey(self) -> str:
        """The key (C2SP vkey) that checkpoints are to be verified with."""
        with self._database.read() as tx:
            return ledger.public_key(tx)

    def prove_inclusion(self, seq: int, size: int = 0) -> tuple[list[str], str]:
        """The hashes that tie entry `seq` to the root of the tree of `size` entries (0: all), and the newest
        checkpoint. Raises `NotFound`."""
        with self._database.read() as tx:
            return ledger.inclusion_proof(tx, seq, size), ledger.checkpoint(tx)

    def prove_consistency(self, first: int, second: int = 0) -> tuple[list[str], str]:
        """The hashes that show the tree of `first` entries to be the beginning of that of `second` (0: all), and the
        newest checkpoint. Raises `NotFound`."""
        with self._database.read() as tx:
            return ledger.consistency_proof(tx, first, second), ledger.checkpoint(tx)

    def verify_ledger(self, trusted: str | None = None, key: str = "") -> Findings:
        """Recompute everything. `trusted` is a checkpoint, `key` a public key, that somebody kept outside."""
        with self._database.read() as tx:
            return ledger.verify(tx, key or ledger.public_key(tx), trusted)

    def live_at(self, endpoint: str, at: float) -> LiveThen:
        """What an endpoint served at a time (seconds since 1970), who let it and on what evidence, as the ledger says.
        Raises `NotFound` where nothing was released then."""
        with self._database.read() as tx:
            after, newest = -1, None
            approvals: list[Entry] = []
            while newest is None:
                page = ledger.entries(tx, subject=endpoint, limit=_PAGE, newest=True, after=after)
                past = [entry for entry in page if entry.time <= at]
                newest = next((entry for entry in past if entry.kind in _STEPS), None)
                approvals += [entry for entry in past if entry.kind == "endpoint.apply" or _lets_on(entry)]
                if newest is None and len(page) < _PAGE:
                    raise NotFound(f'endpoint "{endpoint[:128]}": the ledger has no release of it at that time')
                after = page[-1].seq
        return LiveThen(endpoint, at, newest, tuple(approvals[:_APPROVALS]))

    def explain(self, prediction_id: str) -> Explained:
        """The lineage of a prediction. Raises `NotFound` where it was not sampled, or long ago."""
        with self._database.read() as tx:
            prediction = predictions.get(tx, prediction_id)
            if prediction is None:
                raise NotFound(
                    f'prediction "{prediction_id[:128]}" is not in the sampled log; spec.log.sample of its endpoint '
                    "says which share is kept"
                )
            record = _find_release(tx, prediction)
            registered = _find_version(tx, prediction, record)
            entries = _find_entries(tx, prediction, registered)
        rollout_id = record.state.rollout_id if record is not None else ""
        steps = [entry for entry in entries if entry.kind in _STEPS and entry.detail.get("rollout") == rollout_id]
        approvals = tuple(entry for entry in entries if _is_approval(entry, registered))
        return Explained(prediction, registered, rollout_id, steps[-1] if steps else None, approvals, tuple(entries))


def _find_release(tx: Connection, prediction: PredictionRow) -> Record | None:
    """The rollout that was on when it was made: by its epoch, else by its time."""
    records = [decode_record(row.body, row.revision) for row in rollouts.history(tx, prediction.endpoint, _PAGE)]
    for record in records:  # newest first
        if prediction.epoch and any(share.epoch == prediction.epoch for share in record.state.epochs):
            return record
    return next((record for record in records if record.state.started_at <= prediction.time), None)


def _find_version(tx: Connection, prediction: PredictionRow, record: Record | None) -> Registered | None:
    runtime = record.kept.runtimes.get(prediction.version) if record is not None else None
    if runtime is None or runtime.digest != prediction.digest:
        return None
    manifest = registry.get_manifest(tx, runtime.model, runtime.version)
    if manifest is None:
        return None
    names = sorted(
        alias for alias, version in registry.aliases(tx, runtime.model).items() if version == runtime.version
    )
    return Registered(manifest, registry.get_signature(tx, runtime.model, runtime.version), tuple(names))


def _find_entries(tx: Connection, prediction: PredictionRow, registered: Registered | None) -> list[Entry]:
    """Those about the version, and those about the endpoint that name its digest or no version, up to that time."""
    found = ledger.entries(tx, subject=prediction.endpoint, limit=_PAGE, newest=True)
    about = [entry for entry in found if _concerns(entry, prediction.digest)]
    if registered is not None:
        model = registered.manifest.model
        names = (registered.manifest.version, *registered.aliases)
        for name in names:
            about += ledger.entries(tx, subject=f"{model}@{name}", limit=_PAGE, newest=True)
    return sorted((entry for entry in about if entry.time <= prediction.time), key=lambda entry: entry.seq)


def _concerns(entry: Entry, digest: str) -> bool:
    named = [entry.detail[key] for key in ("to_digest", "from_digest") if key in entry.detail]
    return not named or digest in named


def _lets_on(entry: Entry) -> bool:
    """Whether it is a command that lets a version have more requests."""
    return entry.kind == "rollout.command" and entry.detail.get("verb") in ("promote", "resume", "restart", "undo")


def _is_approval(entry: Entry, registered: Registered | None) -> bool:
    """Whether a person let this version go on: named it in the resource, moved an alias to it, or commanded so."""
    if registered is None or _lets_on(entry):
        return _lets_on(entry)
    manifest = registered.manifest
    if entry.kind == "model.alias":
        return bool(entry.detail.get("to") == manifest.version)
    names = {f"{manifest.model}@{name}" for name in (manifest.version, *registered.aliases)}
    return entry.kind == "endpoint.apply" and entry.detail.get("model") in names
