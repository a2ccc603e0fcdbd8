"""`/api/v1/keys`, `/api/v1/ledger` and `/api/v1/explain`: who may do what, what was done, and what led to an answer."""

import time
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from hyperion.api.callers import Admin, Reader
from hyperion.api.records import Management, desk_of
from hyperion.api.records_audit import (
    CheckpointView,
    EntryList,
    ExplainView,
    FindingsView,
    KeyRequest,
    KeyView,
    LiveView,
    NewKey,
    ProofView,
    RotatedKey,
    RotateRequest,
    VerifyRequest,
    view_entry,
    view_explained,
    view_findings,
    view_key,
    view_live,
)
from hyperion.schema.errors import MalformedRequest

PAGE_MAX: Final = 1_000
NUMBER_MAX: Final = (1 << 53) - 1  # what JSON's readers can count to; a database can count further
Count = Annotated[int, Query(ge=0, le=NUMBER_MAX)]
KeyId = Annotated[str, Path(description="id of the key", max_length=128)]
Words = Annotated[str, Query(max_length=300)]


def add_key_routes(router: APIRouter, management: Management) -> None:
    """Add the routes."""

    @router.get("/keys")
    def list_keys(_caller: Admin) -> list[KeyView]:
        """Every key, without its secret."""
        return [view_key(row) for row in desk_of(management).audit.list_keys()]

    @router.post("/keys", status_code=201)
    async def create_key(caller: Admin, body: KeyRequest) -> NewKey:
        """Make a key; answers when every gateway knows it. Its secret is in this answer and nowhere else."""
        if body.expires_at is not None and body.expires_at <= time.time():
            raise MalformedRequest(
                f"expires_at: {body.expires_at:.0f} lies in the past; expected a time to come, in seconds since 1970"
            )
        audit = desk_of(management).audit
        row, secret = await run_in_threadpool(
            lambda: audit.create_key(body.tenant, body.scopes, body.expires_at, actor=caller.name)
        )
        await management.follow_writes()
        return NewKey(id=row.id, key=secret, tenant=row.tenant, scopes=list(row.scopes), expires_at=row.expires_at)

    @router.post("/keys/{key_id}/rotate", status_code=201)
    async def rotate_key(key_id: KeyId, caller: Admin, body: RotateRequest | None = None) -> RotatedKey:
        """Make a key's successor, of the same tenant and scopes; the old one ends after the overlap. Answers when every
        gateway knows."""
        audit, wish = desk_of(management).audit, body or RotateRequest()
        new, secret, old = await run_in_threadpool(
            lambda: audit.rotate_key(key_id, wish.overlap_s, actor=caller.name, reason=wish.reason)
        )
        await management.follow_writes()
        return RotatedKey(
            id=new.id,
            key=secret,
            tenant=new.tenant,
            scopes=list(new.scopes),
            expires_at=new.expires_at,
            replaces=old.id,
            replaced_expires_at=old.expires_at or 0.0,
        )

    @router.delete("/keys/{key_id}", status_code=204, response_class=Response)
    async def revoke_key(key_id: KeyId, caller: Admin, reason: Words = "") -> None:
        """End a key for good; answers when no gateway takes it any more."""
        audit = desk_of(management).audit
        await run_in_threadpool(lambda: audit.revoke_key(key_id, actor=caller.name, reason=reason))
        await management.follow_writes()


def add_ledger_routes(router: APIRouter, management: Management) -> None:
    """Add the routes."""

    @router.get("/ledger/entries")
    def list_entries(
        caller: Reader,
        after: Annotated[int, Query(ge=-1, le=NUMBER_MAX, description="sequence number")] = -1,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 100,
        subject: Words = "",
        kind: Annotated[str, Query(max_length=100, description="`rollout.` means all that begin so")] = "",
        newest: Annotated[bool, Query(description="start from the end, newest first")] = False,
    ) -> EntryList:
        """Entries, oldest first, of one subject or kind where asked. What they tell of tenants, issuers, keys, jobs and
        batch jobs needs the scope deploy."""
        found = desk_of(management).audit.entries(after=after, limit=limit, subject=subject, kind=kind, newest=newest)
        return EntryList(
            items=[view_entry(entry, whole="deploy" in caller.scopes) for entry in found],
            next=found[-1].seq if len(found) == limit else None,
        )

    @router.get("/ledger/live")
    def find_live(
        _caller: Reader,
        endpoint: Words,
        at: Annotated[float, Query(description="seconds since 1970", ge=0, allow_inf_nan=False)],
    ) -> LiveView:
        """What an endpoint served at a time, on what evidence, and who let it."""
        return view_live(desk_of(management).audit.live_at(endpoint, at))

    @router.get("/ledger/checkpoint")
    def get_checkpoint(_caller: Reader) -> CheckpointView:
        """The newest signed checkpoint. Keep one outside, and nobody can rewrite what came before it unseen."""
        audit = desk_of(management).audit
        return CheckpointView(checkpoint=audit.checkpoint(), key=audit.vkey())

    @router.get("/ledger/proofs/inclusion")
    def prove_inclusion(_caller: Reader, seq: Count, size: Count = 0) -> ProofView:
        """Prove that entry `seq` is in the tree of `size` entries; 0 is all of them."""
        hashes, checkpoint = desk_of(management).audit.prove_inclusion(seq, size)
        return ProofView(hashes=hashes, checkpoint=checkpoint)

    @router.get("/ledger/proofs/consistency")
    def prove_consistency(_caller: Reader, first: Count, second: Count = 0) -> ProofView:
        """Prove that the first `first` entries are the beginning of the first `second`; 0 is all of them."""
        hashes, checkpoint = desk_of(management).audit.prove_consistency(first, second)
        return ProofView(hashes=hashes, checkpoint=checkpoint)

    @router.post("/ledger/verify")
    def verify_ledger(_caller: Reader, body: VerifyRequest | None = None) -> FindingsView:
        """Recompute the whole ledger; with a checkpoint from outside, also what no recomputation can find."""
        given = body or VerifyRequest()
        return view_findings(desk_of(management).audit.verify_ledger(given.checkpoint, given.key))

    @router.get("/explain/{prediction_id}")
    def explain(prediction_id: Annotated[str, Path(max_length=200)], _caller: Reader) -> ExplainView:
        """Endpoint, release, version, code, data, approvals and ledger entries behind one sampled prediction."""
        return view_explained(desk_of(management).audit.explain(prediction_id))
